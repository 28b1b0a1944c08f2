package watch

import (
	"context"
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/countersign-dev/countersign/internal/verifier"
)

// DriftKind is a way in which what runs is not what somebody would expect.
type DriftKind string

// The kinds of drift.
const (
	// DriftTag is that the tag by which a pod names its image names another one now,
	// or none: a restart would run something else.
	DriftTag DriftKind = "tag-moved"
	// DriftReplicas is that pods of one workload run different images for one
	// reference.
	DriftReplicas DriftKind = "replicas-differ"
	// DriftDigest is that a node runs another digest than the pod names.
	DriftDigest DriftKind = "digest-differs"
	// DriftAdmission is that admission was never asked for the digest that runs.
	DriftAdmission DriftKind = "never-admitted"
)

// DriftKinds are all there are, the ones to look at first.
func DriftKinds() []DriftKind {
	return []DriftKind{DriftDigest, DriftAdmission, DriftReplicas, DriftTag}
}

// Drift is one of an image in a namespace.
type Drift struct {
	Kind    DriftKind `json:"kind"`
	Message string    `json:"message"`
}

// drifted compares what runs with what its reference names now: nil where they are
// one image, with the digests by which it is named: an index, a manifest, a config.
func drifted(ctx context.Context, c chain, r running) (drift *Drift, same []digest.Digest, err error) {
	named := r.named.Digest
	if r.digest == "" {
		return nil, nil, nil
	}
	if named == "" {
		subject, err := c.Resolve(ctx, r.named)
		if err != nil {
			if verifier.AsError(err).Reason == verifier.ReasonImageNotFound {
				return &Drift{DriftTag, fmt.Sprintf("%s names nothing any more; the node runs %s", r.named, r.digest)}, nil, nil
			}
			return nil, nil, err
		}
		named = subject.Digest
	}
	known, err := knownBy(ctx, c, r, named)
	if err != nil || len(known) > 0 {
		return nil, known, err
	}
	if r.named.Digest != "" {
		return &Drift{DriftDigest, fmt.Sprintf("the pod names %s, and the node says that it runs %s", named, r.digest)}, nil, nil
	}
	return &Drift{DriftTag, fmt.Sprintf("%s names %s now, and the node runs %s", r.named, named, r.digest)}, nil, nil
}

// lookForDrift does so when it is time. What fails leaves what was known.
func (w *Watch) lookForDrift(ctx context.Context, c *check) {
	w.mu.Lock()
	due := !c.driftDue.After(time.Now())
	w.mu.Unlock()
	if !due {
		return
	}
	drift, same, err := drifted(ctx, c.key.chain, c.running)
	if err != nil {
		return // the next look tries again
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	c.drift, c.sameImage, c.driftDue = drift, same, time.Now().Add(w.spread(w.options.DriftInterval))
}

// drift is all that is known of a row; siblings are the rows of its namespace with the
// same reference.
func (r *row) drift(siblings []*row, admission Admission) []Drift {
	var list []Drift
	for c := range r.checks {
		if c.drift != nil {
			list = append(list, *c.drift)
		} else if admission != nil {
			if pod, never := r.neverAdmitted(c, admission); never {
				list = append(list, Drift{DriftAdmission, "admission was never asked about " + c.running.digest.String() + ", which pod " + pod + " runs: its tag has moved meanwhile, or nobody asks about its namespace"})
			}
		}
		break // all of a row's checks are for the same reference, digest and platform
	}
	for _, other := range siblings {
		if other == r || other.sameImage(r) {
			continue
		}
		if workload, ok := r.sharedWorkload(other); ok {
			list = append(list, Drift{DriftReplicas, fmt.Sprintf("other pods of %s run %s", workload, other.digest())})
			break
		}
	}
	return list
}

// neverAdmitted finds a pod for whose image admission was never asked, by any digest by
// which it is known. Of what no policy has verified nobody knows the digest.
func (r *row) neverAdmitted(c *check, admission Admission) (pod string, never bool) {
	if c.key.chain == nil || len(c.sameImage) == 0 {
		return "", false
	}
	for container := range r.containers {
		if name := container.pod.name; admission.Never(container.pod.created, c.sameImage...) && (!never || name < pod) {
			pod, never = name, true
		}
	}
	return pod, never
}

// sameImage reports whether two rows of one reference are the same image, or may be:
// another platform's, the same by its index, or one that is not known yet.
func (r *row) sameImage(other *row) bool {
	a, b := r.digest(), other.digest()
	if a == b || r.key.imageID == "" || other.key.imageID == "" || r.key.platform != other.key.platform {
		return true
	}
	judged := r.judged()
	return judged != "" && judged == other.judged()
}

// judged is the digest by which the image was verified.
func (r *row) judged() digest.Digest {
	if c := r.worst(); c != nil {
		return c.outcome.Digest
	}
	return ""
}

// sharedWorkload is a workload whose pods use both.
func (r *row) sharedWorkload(other *row) (Workload, bool) {
	mine := map[Workload]bool{}
	for c := range r.containers {
		mine[c.pod.workload] = true
	}
	for c := range other.containers {
		if mine[c.pod.workload] {
			return c.pod.workload, true
		}
	}
	return Workload{}, false
}
