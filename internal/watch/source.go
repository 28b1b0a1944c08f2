package watch

import (
	"context"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/wait"
	apiwatch "k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

// nodesPatience is how long the nodes are waited for before the pods are followed.
const nodesPatience = 10 * time.Second

// Source follows the pods of a cluster, and its nodes, and tells a Watch.
type Source struct {
	client     rest.Interface
	namespaces []string // none: all
	watch      *Watch
}

// NewSource makes a Source; see Run. With namespaces it needs no more rights than to
// list and watch their pods, and does not know the nodes' platforms.
func NewSource(config *rest.Config, namespaces []string, w *Watch) (*Source, error) {
	config = rest.CopyConfig(config)
	config.ContentType = runtime.ContentTypeProtobuf
	client, err := coreClient(config)
	if err != nil {
		return nil, err
	}
	return &Source{client, namespaces, w}, nil
}

// coreClient speaks of what Kubernetes' core has.
func coreClient(config *rest.Config) (rest.Interface, error) {
	scheme := runtime.NewScheme()
	if err := corev1.AddToScheme(scheme); err != nil {
		return nil, err
	}
	metav1.AddToGroupVersion(scheme, corev1.SchemeGroupVersion)
	config = rest.CopyConfig(config)
	config.APIPath, config.GroupVersion = "/api", &corev1.SchemeGroupVersion
	config.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	client, err := rest.RESTClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("reach the API server: %w", err)
	}
	return client, nil
}

// Run follows until ctx ends. What fails is tried again, ever less often.
func (s *Source) Run(ctx context.Context) error {
	var following sync.WaitGroup
	defer following.Wait()
	follow := func(resource, namespace string, kind runtime.Object, into cache.ReflectorStore) {
		reflector := cache.NewReflectorWithOptions(s.listWatch(resource, namespace), kind, into, cache.ReflectorOptions{Name: resource, Backoff: &wait.Backoff{
			Duration: 2 * time.Second, Cap: 30 * time.Second, Steps: 15, Factor: 2, Jitter: 0.2,
		}})
		following.Go(func() { reflector.RunWithContext(ctx) })
	}
	if len(s.namespaces) == 0 {
		known := make(chan struct{})
		follow("nodes", metav1.NamespaceAll, &corev1.Node{}, &nodes{watch: s.watch, known: func() { close(known) }})
		select { // a pod is another image's row where its node's platform is not known
		case <-known:
		case <-time.After(nodesPatience):
		case <-ctx.Done():
			return nil
		}
		follow("pods", metav1.NamespaceAll, &corev1.Pod{}, &pods{watch: s.watch, synced: s.watch.expect(1)})
		return nil
	}
	synced := s.watch.expect(len(s.namespaces))
	for _, namespace := range s.namespaces {
		follow("pods", namespace, &corev1.Pod{}, &pods{watch: s.watch, namespace: namespace, synced: synced})
	}
	return nil
}

// listWatch asks once: how soon to ask again is the reflector's to say.
func (s *Source) listWatch(resource, namespace string) *cache.ListWatch {
	ask := func(options *metav1.ListOptions) *rest.Request {
		return s.client.Get().Namespace(namespace).Resource(resource).VersionedParams(options, metav1.ParameterCodec).MaxRetries(0)
	}
	return &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			return ask(&options).Do(ctx).Get()
		},
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (apiwatch.Interface, error) {
			options.Watch = true
			return ask(&options).Watch(ctx)
		},
	}
}

// expect is told by each of so many sources when it has given what there is.
func (w *Watch) expect(sources int) func() {
	var mu sync.Mutex
	return func() {
		mu.Lock()
		defer mu.Unlock()
		if sources--; sources == 0 {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.synced = true
		}
	}
}

// pods implements cache.ReflectorStore over a Watch: what it is given is trimmed, and
// no pod is kept.
type pods struct {
	watch     *Watch
	namespace string
	synced    func()
	once      sync.Once
}

// Transformer has pods trimmed before they are collected.
func (p *pods) Transformer() cache.TransformFunc {
	return func(object any) (any, error) {
		if pod, ok := object.(*corev1.Pod); ok {
			return trim(pod), nil
		}
		return object, nil
	}
}

// Add implements cache.ReflectorStore.
func (p *pods) Add(object any) error {
	if pod, ok := object.(*corev1.Pod); ok {
		p.watch.setPod(pod.UID, podOf(pod))
	}
	return nil
}

// Update implements cache.ReflectorStore.
func (p *pods) Update(object any) error { return p.Add(object) }

// Delete implements cache.ReflectorStore.
func (p *pods) Delete(object any) error {
	if pod, ok := object.(*corev1.Pod); ok {
		p.watch.setPod(pod.UID, nil)
	}
	return nil
}

// Replace implements cache.ReflectorStore.
func (p *pods) Replace(objects []any, _ string) error {
	list := make([]*pod, 0, len(objects))
	for _, object := range objects {
		if pod, ok := object.(*corev1.Pod); ok {
			if trimmed := podOf(pod); trimmed != nil {
				list = append(list, trimmed)
			}
		}
	}
	p.watch.replacePods(p.namespace, list)
	p.once.Do(p.synced)
	return nil
}

// Resync implements cache.ReflectorStore.
func (p *pods) Resync() error { return nil }

// trim leaves what podOf reads.
func trim(p *corev1.Pod) *corev1.Pod {
	t := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{UID: p.UID, Namespace: p.Namespace, Name: p.Name, CreationTimestamp: p.CreationTimestamp, OwnerReferences: p.OwnerReferences, ResourceVersion: p.ResourceVersion, Annotations: initialEvents(p)},
		Spec:       corev1.PodSpec{NodeName: p.Spec.NodeName, ServiceAccountName: p.Spec.ServiceAccountName, ImagePullSecrets: p.Spec.ImagePullSecrets},
		Status:     corev1.PodStatus{Phase: p.Status.Phase},
	}
	if hash, ok := p.Labels["pod-template-hash"]; ok {
		t.Labels = map[string]string{"pod-template-hash": hash}
	}
	for _, c := range p.Spec.InitContainers {
		t.Spec.InitContainers = append(t.Spec.InitContainers, corev1.Container{Name: c.Name, Image: c.Image, RestartPolicy: c.RestartPolicy})
	}
	for _, c := range p.Spec.Containers {
		t.Spec.Containers = append(t.Spec.Containers, corev1.Container{Name: c.Name, Image: c.Image})
	}
	for _, c := range p.Spec.EphemeralContainers {
		t.Spec.EphemeralContainers = append(t.Spec.EphemeralContainers, corev1.EphemeralContainer{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: c.Name, Image: c.Image}})
	}
	for _, v := range p.Spec.Volumes {
		if v.Image != nil {
			t.Spec.Volumes = append(t.Spec.Volumes, corev1.Volume{Name: v.Name, VolumeSource: corev1.VolumeSource{Image: v.Image}})
		}
	}
	short := func(list []corev1.ContainerStatus) []corev1.ContainerStatus {
		var trimmed []corev1.ContainerStatus
		for _, s := range list {
			trimmed = append(trimmed, corev1.ContainerStatus{Name: s.Name, ImageID: s.ImageID, ContainerID: s.ContainerID, VolumeMounts: imageMounts(s.VolumeMounts)})
		}
		return trimmed
	}
	t.Status.InitContainerStatuses = short(p.Status.InitContainerStatuses)
	t.Status.ContainerStatuses = short(p.Status.ContainerStatuses)
	t.Status.EphemeralContainerStatuses = short(p.Status.EphemeralContainerStatuses)
	return t
}

// initialEvents keeps what tells the end of a streamed list.
func initialEvents(p *corev1.Pod) map[string]string {
	if v, ok := p.Annotations[metav1.InitialEventsAnnotationKey]; ok {
		return map[string]string{metav1.InitialEventsAnnotationKey: v}
	}
	return nil
}

// nodes implements cache.ReflectorStore for the platforms of nodes.
type nodes struct {
	watch *Watch
	known func()
	once  sync.Once
}

// Add implements cache.ReflectorStore.
func (n *nodes) Add(object any) error {
	if node, ok := object.(*corev1.Node); ok {
		info := node.Status.NodeInfo
		if info.OperatingSystem != "" && info.Architecture != "" {
			n.watch.setNode(node.Name, info.OperatingSystem+"/"+info.Architecture)
		}
	}
	return nil
}

// Update implements cache.ReflectorStore.
func (n *nodes) Update(object any) error { return n.Add(object) }

// Delete implements cache.ReflectorStore.
func (n *nodes) Delete(object any) error {
	if node, ok := object.(*corev1.Node); ok {
		n.watch.deleteNode(node.Name)
	}
	return nil
}

// Replace implements cache.ReflectorStore. A node that is gone takes its pods along.
func (n *nodes) Replace(objects []any, _ string) error {
	for _, object := range objects {
		_ = n.Add(object)
	}
	n.once.Do(n.known)
	return nil
}

// Resync implements cache.ReflectorStore.
func (*nodes) Resync() error { return nil }
