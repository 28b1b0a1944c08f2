package watch

import (
	"regexp"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Use is what a pod uses an image for.
type Use string

// The uses of images. A sidecar is an init container that goes on.
const (
	UseContainer Use = "container"
	UseInit      Use = "init"
	UseSidecar   Use = "sidecar"
	UseEphemeral Use = "ephemeral"
	UseVolume    Use = "volume"
)

// Workload is what a pod belongs to, for people: its controller, and what that
// belongs to as far as its name tells.
type Workload struct {
	Kind string `json:"kind"`
	Name string `json:"name"`
}

// pod is what we keep of one.
type pod struct {
	uid             types.UID
	namespace, name string
	node, account   string
	created         time.Time
	secrets         []string // pull secrets
	workload        Workload
	containers      []*container
}

// container is a use of an image in a pod.
type container struct {
	pod  *pod
	name string
	use  Use
	// image is as the spec has it, and imageID as the node says; empty where it has
	// not been pulled, or the node does not say.
	image, imageID, containerID string

	row   *row   // the image in its namespace
	check *check // what verifies it
}

// podOf trims a pod to what matters, or gives nil for one of which nothing runs any
// more.
func podOf(p *corev1.Pod) *pod {
	if p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed {
		return nil
	}
	trimmed := &pod{
		uid: p.UID, namespace: p.Namespace, name: p.Name, node: p.Spec.NodeName, account: p.Spec.ServiceAccountName, created: p.CreationTimestamp.Time,
		workload: workloadOf(p),
	}
	for _, secret := range p.Spec.ImagePullSecrets {
		trimmed.secrets = append(trimmed.secrets, secret.Name)
	}
	s := statuses{}
	s.add(p.Status.InitContainerStatuses)
	s.add(p.Status.ContainerStatuses)
	s.add(p.Status.EphemeralContainerStatuses)
	add := func(name string, use Use, image string) {
		status := s[name]
		trimmed.containers = append(trimmed.containers, &container{
			pod: trimmed, name: name, use: use, image: image, imageID: status.ImageID, containerID: status.ContainerID,
		})
	}
	for _, c := range p.Spec.InitContainers {
		use := UseInit
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			use = UseSidecar
		}
		add(c.Name, use, c.Image)
	}
	for _, c := range p.Spec.Containers {
		add(c.Name, UseContainer, c.Image)
	}
	for _, c := range p.Spec.EphemeralContainers {
		add(c.Name, UseEphemeral, c.Image)
	}
	mounted := mountedImages(p)
	for _, v := range p.Spec.Volumes {
		if v.Image == nil {
			continue
		}
		ids := mounted[v.Name]
		if len(ids) == 0 { // no container has mounted it, or the node does not say
			ids = []string{""}
		}
		for _, id := range ids {
			trimmed.containers = append(trimmed.containers, &container{pod: trimmed, name: v.Name, use: UseVolume, image: v.Image.Reference, imageID: id})
		}
	}
	return trimmed
}

// mountedImages are the images that the node reports for image volumes, by the volume's
// name: more than one where its containers have mounted different ones.
func mountedImages(p *corev1.Pod) map[string][]string {
	images := map[string][]string{}
	for _, list := range [][]corev1.ContainerStatus{p.Status.InitContainerStatuses, p.Status.ContainerStatuses, p.Status.EphemeralContainerStatuses} {
		for _, status := range list {
			for _, m := range imageMounts(status.VolumeMounts) {
				if id := m.VolumeStatus.Image.ImageRef; !slices.Contains(images[m.Name], id) {
					images[m.Name] = append(images[m.Name], id)
				}
			}
		}
	}
	return images
}

// imageMounts are the mounts of which the node says what image is mounted.
func imageMounts(mounts []corev1.VolumeMountStatus) []corev1.VolumeMountStatus {
	var list []corev1.VolumeMountStatus
	for _, m := range mounts {
		if m.VolumeStatus != nil && m.VolumeStatus.Image != nil && m.VolumeStatus.Image.ImageRef != "" {
			list = append(list, corev1.VolumeMountStatus{Name: m.Name, VolumeStatus: m.VolumeStatus})
		}
	}
	return list
}

// statuses are those of a pod's containers, whose names differ whatever their kind.
type statuses map[string]corev1.ContainerStatus

func (s statuses) add(list []corev1.ContainerStatus) {
	for _, status := range list {
		s[status.Name] = status
	}
}

// jobOfCronJob is how a CronJob names its Jobs.
var jobOfCronJob = regexp.MustCompile(`^(.+)-[0-9]{8,}$`)

func workloadOf(p *corev1.Pod) Workload {
	for _, owner := range p.OwnerReferences {
		if owner.Controller == nil || !*owner.Controller {
			continue
		}
		hash := p.Labels["pod-template-hash"]
		if name, ok := strings.CutSuffix(owner.Name, "-"+hash); ok && hash != "" && owner.Kind == "ReplicaSet" {
			return Workload{"Deployment", name}
		}
		if parts := jobOfCronJob.FindStringSubmatch(owner.Name); parts != nil && owner.Kind == "Job" {
			return Workload{"CronJob", parts[1]}
		}
		return Workload{owner.Kind, owner.Name}
	}
	return Workload{"Pod", p.Name}
}

// same reports whether nothing has changed that matters: of a pod much changes that
// does not.
func (p *pod) same(other *pod) bool {
	if p == nil || other == nil {
		return p == other
	}
	return p.namespace == other.namespace && p.name == other.name && p.node == other.node && p.account == other.account && p.workload == other.workload &&
		slices.Equal(p.secrets, other.secrets) && slices.EqualFunc(p.containers, other.containers, func(a, b *container) bool {
		return a.name == b.name && a.use == b.use && a.image == b.image && a.imageID == b.imageID && a.containerID == b.containerID
	})
}
