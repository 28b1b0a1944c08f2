package watch

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/countersign-dev/countersign/internal/verifier"
)

// Row is an image in a namespace, as people and programs see it.
type Row struct {
	Namespace string `json:"namespace"`
	// Image as the pods' specs have it.
	Image string `json:"image"`
	// Digest that runs; empty where the node does not say yet.
	Digest   string          `json:"digest,omitempty"`
	Platform string          `json:"platform,omitempty"`
	Status   Status          `json:"status"`
	Reason   verifier.Reason `json:"reason,omitempty"`
	Message  string          `json:"message,omitempty"`
	Remedy   string          `json:"remedy,omitempty"`
	Policy   string          `json:"policy,omitempty"`
	// Since is when it became so, CheckedAt when it was last found to be, and NextAt
	// when it is looked at again.
	Since     *time.Time `json:"since,omitempty"`
	CheckedAt *time.Time `json:"checkedAt,omitempty"`
	NextAt    *time.Time `json:"nextAt,omitempty"`
	// Ends is when it will not be let run any more, if nobody does anything.
	Ends *time.Time `json:"ends,omitempty"`
	// Last is the last verdict, where looking fails since; Trouble says why.
	Last    *Known `json:"lastVerdict,omitempty"`
	Trouble string `json:"trouble,omitempty"`
	// Containers that use it.
	Containers []Place `json:"containers"`
	// Drift is what is not as its pods, its tag or its replicas say.
	Drift []Drift `json:"drift,omitempty"`
	// Subject is the digest that was judged, of a manifest or index.
	Subject string `json:"subject,omitempty"`
	// Rules and Evidence are shown for single images only.
	Rules    []Rule     `json:"rules,omitempty"`
	Evidence []Evidence `json:"evidence,omitempty"`

	ending    verifier.End
	endOfLife time.Time
}

// Workloads are those that use it, each once, in their order.
func (r Row) Workloads() []string {
	var names []string
	for _, p := range r.Containers { // which are in their order
		if len(names) == 0 || names[len(names)-1] != p.Workload {
			names = append(names, p.Workload)
		}
	}
	return names
}

// Place is where an image is used.
type Place struct {
	Pod         string `json:"pod"`
	Container   string `json:"container"`
	Use         Use    `json:"use"`
	Workload    string `json:"workload"` // as Deployment/cart
	ContainerID string `json:"containerID,omitempty"`
	ImageID     string `json:"imageID,omitempty"`
}

// Filter says which rows are wanted. A zero field leaves nothing out.
type Filter struct {
	// Allowed is which namespaces may be seen; nil: all.
	Allowed func(namespace string) bool
	// Namespace, Statuses and Text (in image, digest, workload, pod or message)
	// narrow them.
	Namespace string
	Statuses  []Status
	Text      string
	// Drifts narrows them to those with a drift of these kinds.
	Drifts []DriftKind
}

// Summary counts containers.
type Summary struct {
	// Containers by status, zeros included, and the same by namespace.
	Containers map[Status]int            `json:"containers"`
	Namespaces map[string]map[Status]int `json:"namespaces"`
	// Images are digests that run.
	Images int `json:"images"`
	// Drift counts images in namespaces by the kinds of drift, zeros included; Ending
	// those that will not be let run any more within 30 days, and NextEnd is when the
	// first of all will not.
	Drift   map[DriftKind]int `json:"drift"`
	Ending  int               `json:"ending"`
	NextEnd *time.Time        `json:"nextEnd,omitempty"`
	// Synced says whether all pods are known, and Checked when all their images had
	// been looked at for the first time.
	Synced  bool       `json:"synced"`
	Checked *time.Time `json:"checked,omitempty"`
	// Oldest is when what was looked at the longest ago was.
	Oldest *time.Time `json:"oldest,omitempty"`
}

// noCounts has each status, with none.
func noCounts() map[Status]int {
	counts := map[Status]int{}
	for _, s := range Statuses() {
		counts[s] = 0
	}
	return counts
}

// Summary counts the containers that may be seen.
func (w *Watch) Summary(allowed func(string) bool) Summary {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := Summary{Containers: noCounts(), Namespaces: map[string]map[Status]int{}, Drift: map[DriftKind]int{}, Synced: w.synced, Checked: some(w.passed)}
	for _, kind := range DriftKinds() {
		s.Drift[kind] = 0
	}
	images, siblings, horizon := map[string]bool{}, w.siblings(), time.Now().Add(Horizon)
	for key, r := range w.rows {
		if allowed != nil && !allowed(key.namespace) {
			continue
		}
		status, n := r.status(), len(r.containers)
		counts := s.Namespaces[key.namespace]
		if counts == nil {
			counts = noCounts()
			s.Namespaces[key.namespace] = counts
		}
		counts[status] += n
		s.Containers[status] += n
		if d := r.digest(); d != "" {
			images[d] = true
		}
		for _, drift := range r.drift(siblings[reference{key.namespace, key.image}], w.options.Admission) {
			s.Drift[drift.Kind]++
		}
		if c := r.worst(); c != nil && !c.outcome.Ends.At.IsZero() {
			at := c.outcome.Ends.At
			if at.Before(horizon) {
				s.Ending++
			}
			if s.NextEnd == nil || at.Before(*s.NextEnd) {
				s.NextEnd = &at
			}
		}
		if at := r.known.At; !at.IsZero() && (s.Oldest == nil || at.Before(*s.Oldest)) {
			s.Oldest = &at
		}
	}
	s.Images = len(images)
	return s
}

// Rows gives those that match, by namespace, image and digest.
func (w *Watch) Rows(f Filter) []Row {
	w.mu.Lock()
	defer w.mu.Unlock()
	text := strings.ToLower(f.Text)
	siblings := w.siblings()
	var list []Row
	for key, r := range w.rows {
		if f.Allowed != nil && !f.Allowed(key.namespace) || f.Namespace != "" && f.Namespace != key.namespace {
			continue
		}
		status := r.status()
		if len(f.Statuses) > 0 && !slices.Contains(f.Statuses, status) {
			continue
		}
		row := r.shown(status)
		row.Drift = r.drift(siblings[reference{key.namespace, key.image}], w.options.Admission)
		if len(f.Drifts) > 0 && !slices.ContainsFunc(row.Drift, func(d Drift) bool { return slices.Contains(f.Drifts, d.Kind) }) {
			continue
		}
		if text == "" || row.has(text) {
			list = append(list, row)
		}
	}
	slices.SortFunc(list, func(a, b Row) int {
		return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Image, b.Image), strings.Compare(a.Digest, b.Digest), strings.Compare(a.Platform, b.Platform))
	})
	return list
}

// reference is an image as the pods of a namespace name it.
type reference struct{ namespace, image string }

// siblings are the rows of references that have several. The caller holds mu.
func (w *Watch) siblings() map[reference][]*row {
	siblings := make(map[reference][]*row, len(w.rows))
	for key, r := range w.rows {
		of := reference{key.namespace, key.image}
		siblings[of] = append(siblings[of], r)
	}
	return siblings
}

func (r Row) has(text string) bool {
	in := func(s string) bool { return strings.Contains(strings.ToLower(s), text) }
	return in(r.Image) || in(r.Digest) || in(r.Message) || slices.ContainsFunc(r.Containers, func(p Place) bool { return in(p.Workload) || in(p.Pod) })
}

func some(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// shown is the row as it is now.
func (r *row) shown(status Status) Row {
	row := Row{
		Namespace: r.key.namespace, Image: r.key.image, Digest: r.digest(), Platform: r.key.platform, Status: status,
		Reason: r.known.Reason, Since: some(r.known.Since), CheckedAt: some(r.known.At),
	}
	if c := r.worst(); c != nil {
		o := c.outcome
		row.Reason, row.Message, row.Remedy, row.Policy, row.Subject = o.Reason, o.Message, o.Remedy, o.Policy, o.Digest.String()
		row.Rules, row.Evidence = o.Rules, o.Evidence
		row.NextAt, row.Ends, row.ending, row.endOfLife = some(c.due), some(o.Ends.At), o.Ends, c.endOfLife
		if c.trouble.Status != "" {
			row.Trouble = c.trouble.Message
			if v := c.verdict; v.Status != "" {
				row.Last = &Known{Status: v.Status, Reason: v.Reason, At: v.At}
			}
		}
	}
	for c := range r.containers {
		row.Containers = append(row.Containers, Place{
			Pod: c.pod.name, Container: c.name, Use: c.use, Workload: c.pod.workload.Kind + "/" + c.pod.workload.Name,
			ContainerID: c.containerID, ImageID: c.imageID,
		})
	}
	slices.SortFunc(row.Containers, func(a, b Place) int {
		return cmp.Or(strings.Compare(a.Workload, b.Workload), strings.Compare(a.Pod, b.Pod), strings.Compare(a.Container, b.Container), strings.Compare(string(a.Use), string(b.Use)))
	})
	return row
}

// Synced reports whether all pods are known.
func (w *Watch) Synced() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.synced
}
