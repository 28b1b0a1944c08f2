package watch

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
)

const (
	// reportEvery is how often reports are compared with what runs, reportLook how
	// often with what the API server has, and reportKindEvery how often it is asked
	// what kind it knows.
	reportEvery, reportLook, reportKindEvery = 10 * time.Second, 30 * time.Second, 5 * time.Minute
	// reportRate and reportBurst bound how often the API server is asked anything.
	reportRate, reportBurst = 1, 10

	managedBy    = "app.kubernetes.io/managed-by"
	fieldManager = "countersign-watch"
)

// Reporter writes a report in each namespace in which something runs: of the kind that
// the cluster has, openreports.io before wgpolicyk8s.io, and none where it has none.
// A report is written when it says something else, or somebody has changed it.
type Reporter struct {
	client     rest.Interface
	watch      *Watch
	namespaces []string // none: all
	owner      string
	log        *slog.Logger

	kind    reportKind // the zero reportKind: the cluster has none
	asked   time.Time  // when that was found out
	looked  time.Time
	written map[string]writtenReport
	owners  map[string]*reportOwner // by path
}

// writtenReport is what a namespace's report is, as far as we know.
type writtenReport struct {
	content [sha256.Size]byte
	version string // its resourceVersion
}

// NewReporter makes a Reporter; see Run. Reports belong to the ClusterRole of this
// name, or with namespaces to the Role NAME-pods in each, so that they go when it
// does.
func NewReporter(config *rest.Config, namespaces []string, owner string, w *Watch, log *slog.Logger) (*Reporter, error) {
	config = rest.CopyConfig(config)
	config.QPS, config.Burst = reportRate, reportBurst
	client, err := coreClient(config)
	if err != nil {
		return nil, err
	}
	return &Reporter{client: client, watch: w, namespaces: namespaces, owner: owner, log: log, written: map[string]writtenReport{}}, nil
}

// Run writes until ctx ends.
func (r *Reporter) Run(ctx context.Context) error {
	pause := time.NewTicker(reportEvery)
	defer pause.Stop()
	for {
		select {
		case <-pause.C:
		case <-ctx.Done():
			return nil
		}
		if !r.watch.lookedAtAll() {
			continue // half a report would count too little
		}
		if err := r.write(ctx, time.Now()); err != nil && ctx.Err() == nil {
			r.log.WarnContext(ctx, "reports are not as they should be; trying again", slog.Any("error", err))
			r.asked, r.looked = time.Time{}, time.Time{}
		}
	}
}

// lookedAtAll reports whether all that runs was looked at once.
func (w *Watch) lookedAtAll() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return !w.passed.IsZero()
}

// write makes the reports what they should be.
func (r *Reporter) write(ctx context.Context, now time.Time) error {
	if now.Sub(r.asked) >= reportKindEvery {
		if err := r.ask(ctx); err != nil {
			return err
		}
		r.asked = now
	}
	if r.kind == (reportKind{}) {
		return nil
	}
	if now.Sub(r.looked) >= reportLook {
		if err := r.look(ctx); err != nil {
			return err
		}
		r.looked = now
	}
	wanted := reports(r.kind, r.watch.Rows(Filter{}))
	var errs []error
	for _, namespace := range slices.Sorted(maps.Keys(wanted)) {
		errs = append(errs, r.apply(ctx, wanted[namespace]))
	}
	for namespace := range r.written {
		if wanted[namespace] == nil {
			errs = append(errs, r.remove(ctx, r.kind, namespace))
		}
	}
	return errors.Join(errs...)
}

// ask finds out which kind of report the cluster has, and removes our reports of the
// other.
func (r *Reporter) ask(ctx context.Context) error {
	var found []reportKind
	for _, kind := range reportKinds() {
		var list metav1.APIResourceList
		data, err := r.get("/apis/" + kind.Group + "/" + kind.Version).Do(ctx).Raw()
		if apierrors.IsNotFound(err) {
			continue
		}
		if err != nil {
			return fmt.Errorf("ask which reports the cluster has: %w", err)
		}
		if json.Unmarshal(data, &list) == nil && slices.ContainsFunc(list.APIResources, func(a metav1.APIResource) bool { return a.Name == kind.Resource }) {
			found = append(found, kind)
		}
	}
	best := reportKind{}
	if len(found) > 0 {
		best = found[0]
		for _, other := range found[1:] {
			if err := r.clear(ctx, other); err != nil {
				return err
			}
		}
	}
	r.owners = map[string]*reportOwner{}
	if best != r.kind {
		r.kind, r.written, r.looked = best, map[string]writtenReport{}, time.Time{}
		r.log.InfoContext(ctx, "reports", slog.String("kind", best.Kind), slog.String("group", best.Group))
	}
	return nil
}

// clear removes our reports of a kind.
func (r *Reporter) clear(ctx context.Context, kind reportKind) error {
	versions, err := r.list(ctx, kind)
	if err != nil {
		return err
	}
	for namespace := range versions {
		if err := r.remove(ctx, kind, namespace); err != nil {
			return err
		}
	}
	return nil
}

// look sees what the API server has: what was deleted or changed is written again.
func (r *Reporter) look(ctx context.Context) error {
	versions, err := r.list(ctx, r.kind)
	if err != nil {
		return err
	}
	for namespace, version := range versions {
		if r.written[namespace].version != version {
			r.written[namespace] = writtenReport{version: version} // and not its content
		}
	}
	for namespace := range r.written {
		if versions[namespace] == "" {
			delete(r.written, namespace)
		}
	}
	return nil
}

// list gives the versions of our reports of a kind, by namespace.
func (r *Reporter) list(ctx context.Context, kind reportKind) (map[string]string, error) {
	namespaces := r.namespaces
	if len(namespaces) == 0 {
		namespaces = []string{metav1.NamespaceAll}
	}
	versions := map[string]string{}
	for _, namespace := range namespaces {
		data, err := r.get(kind.path(namespace)).Param("labelSelector", managedBy+"="+ReportName).
			SetHeader("Accept", "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1").Do(ctx).Raw()
		if err != nil {
			return nil, fmt.Errorf("list reports: %w", err)
		}
		var list metav1.PartialObjectMetadataList
		if err := json.Unmarshal(data, &list); err != nil {
			return nil, fmt.Errorf("list reports: %w", err)
		}
		for _, object := range list.Items {
			if object.Name == ReportName {
				versions[object.Namespace] = object.ResourceVersion
			}
		}
	}
	return versions, nil
}

// get asks once: who fails asks again with the next comparison.
func (r *Reporter) get(path string) *rest.Request { return r.client.Get().AbsPath(path).MaxRetries(0) }

// path of a namespace's reports, or with none of all.
func (k reportKind) path(namespace string, name ...string) string {
	path := "/apis/" + k.Group + "/" + k.Version
	if namespace != "" {
		path += "/namespaces/" + namespace
	}
	path += "/" + k.Resource
	for _, n := range name {
		path += "/" + n
	}
	return path
}

// apply writes a report, if it says something else than the API server has.
func (r *Reporter) apply(ctx context.Context, wanted *report) error {
	namespace := wanted.Metadata.Namespace
	said, err := json.Marshal(wanted)
	if err != nil {
		return err
	}
	content := sha256.Sum256(said)
	if r.written[namespace].content == content {
		return nil
	}
	if owner := r.ownerIn(ctx, namespace); owner != nil {
		wanted.Metadata.OwnerReferences = []reportOwner{*owner}
	}
	body, err := json.Marshal(wanted)
	if err != nil {
		return err
	}
	data, err := r.client.Patch(types.ApplyPatchType).AbsPath(r.kind.path(namespace, ReportName)).
		Param("fieldManager", fieldManager).Param("force", "true").Body(body).Do(ctx).Raw()
	if apierrors.IsNotFound(err) || apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
		return nil // the namespace is on its way out
	}
	if err != nil {
		return fmt.Errorf("write the report of namespace %s: %w", namespace, err)
	}
	var written metav1.PartialObjectMetadata
	if err := json.Unmarshal(data, &written); err != nil {
		return fmt.Errorf("write the report of namespace %s: %w", namespace, err)
	}
	r.written[namespace] = writtenReport{content, written.ResourceVersion}
	return nil
}

// remove deletes the report of a namespace in which nothing runs.
func (r *Reporter) remove(ctx context.Context, kind reportKind, namespace string) error {
	err := r.client.Delete().AbsPath(kind.path(namespace, ReportName)).Do(ctx).Error()
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("delete the report of namespace %s: %w", namespace, err)
	}
	if kind == r.kind {
		delete(r.written, namespace)
	}
	return nil
}

// ownerIn is what the report of a namespace belongs to; nil where that is not known.
func (r *Reporter) ownerIn(ctx context.Context, namespace string) *reportOwner {
	if r.owner == "" {
		return nil
	}
	owner := &reportOwner{APIVersion: "rbac.authorization.k8s.io/v1", Kind: "ClusterRole", Name: r.owner}
	path := "/apis/rbac.authorization.k8s.io/v1/clusterroles/" + r.owner
	if len(r.namespaces) > 0 {
		owner.Kind, owner.Name = "Role", r.owner+"-pods"
		path = "/apis/rbac.authorization.k8s.io/v1/namespaces/" + namespace + "/roles/" + owner.Name
	}
	if known := r.owners[path]; known != nil {
		return known
	}
	data, err := r.get(path).SetHeader("Accept", "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1").Do(ctx).Raw()
	var object metav1.PartialObjectMetadata
	if err != nil || json.Unmarshal(data, &object) != nil || object.UID == "" {
		return nil
	}
	owner.UID = string(object.UID)
	r.owners[path] = owner
	return owner
}
