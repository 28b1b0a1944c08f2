package e2e

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/test/cluster"
	"github.com/countersign-dev/countersign/test/kubeyaml"
)

// TestADeploymentsPods: the Deployment names a tag, its Pods run the digest, and
// a restart after the tag moved starts nothing that nobody signed.
func TestADeploymentsPods(t *testing.T) {
	s := in(t, "deployment", nil)
	image := s.signed(t, "deployment/cart:1.4")
	pinned := image + "@" + s.Digest("deployment/cart:1.4").String()
	made := deployment("deployment", "cart", image, 2)
	must(t, s.Client.Create(t.Context(), made))
	s.eventuallyRuns(t, "deployment", pinned, 2)

	s.unsigned(t, "deployment/cart:evil")
	must(t, s.Move(t.Context(), "deployment/cart:1.4", "deployment/cart:evil"))
	s.eventuallyDenied(t, "deployment", image, "no signature found")
	s.restart(t, made)
	must(t, cluster.Eventually(t.Context(), patience, func(ctx context.Context) error {
		if err := s.Client.Get(ctx, client.ObjectKeyFromObject(made), made); err != nil {
			return err
		}
		for _, condition := range made.Status.Conditions {
			if condition.Type == appsv1.DeploymentReplicaFailure && strings.Contains(condition.Message, "no signature found") {
				t.Log(condition.Message)
				return nil
			}
		}
		return fmt.Errorf("the Deployment does not say why: %v", made.Status.Conditions)
	}))
	s.eventuallyRuns(t, "deployment", pinned, 2)
}

// TestL26_ScalingIsHeldUpByNothing: an image that is no longer trusted lets its
// Deployment shrink and end, and start nothing.
func TestL26_ScalingIsHeldUpByNothing(t *testing.T) {
	s := in(t, "scaling", nil)
	image := s.signed(t, "scaling/cart:1.4")
	made := deployment("scaling", "cart", image, 2)
	must(t, s.Client.Create(t.Context(), made))
	pinned := image + "@" + s.Digest("scaling/cart:1.4").String()
	s.eventuallyRuns(t, "scaling", pinned, 2)
	s.distrust(t, "scaling", image)

	s.scale(t, made, 1)
	s.eventuallyRuns(t, "scaling", pinned, 1)
	other := s.signed(t, "scaling/cart:1.5")
	must(t, s.update(t, made, func(d *appsv1.Deployment) {
		d.Spec.Template.Spec.Containers[0].Image, d.Spec.Replicas = other, new(int32)
	}))
	s.eventuallyRuns(t, "scaling", "", 0)
	s.scale(t, made, 1)
	must(t, cluster.Eventually(t.Context(), patience, func(ctx context.Context) error {
		return s.said(ctx, "scaling", other)
	}))
	s.eventuallyRuns(t, "scaling", "", 0)
	must(t, s.Client.Delete(t.Context(), made, client.PropagationPolicy(metav1.DeletePropagationForeground)))
	must(t, cluster.Eventually(t.Context(), patience, func(ctx context.Context) error {
		err := s.Client.Get(ctx, client.ObjectKeyFromObject(made), made)
		if err == nil {
			return errors.New("the Deployment is still there")
		}
		return client.IgnoreNotFound(err)
	}))
}

// TestAWorkloadIsToldAtOnce: with the library's ExpansionTemplate, who applies a
// Deployment hears of its Pods; with deny in it, a restart after the tag moved is
// refused where it was asked for.
func TestAWorkloadIsToldAtOnce(t *testing.T) {
	s := in(t, "expansion", nil)
	objects, err := kubeyaml.Read(libraryDir + "/trusted-images/samples/expansion.yaml")
	must(t, err)
	must(t, s.Apply(t.Context(), objects...))
	defer s.remove(t, objects...)
	unsigned := deployment("expansion", "unsigned", s.unsigned(t, "expansion/unsigned:1"), 0)
	s.Warnings.Take()
	must(t, cluster.Eventually(t.Context(), patience, func(ctx context.Context) error {
		if err := s.Client.Create(ctx, unsigned.DeepCopy(), client.DryRunAll); err != nil {
			return err
		}
		said := strings.Join(s.Warnings.Take(), "\n")
		if !strings.Contains(said, "no signature found") {
			return fmt.Errorf("no warning but %q", said)
		}
		t.Log(said)
		return nil
	}))

	image := s.signed(t, "expansion/cart:1.4")
	made := deployment("expansion", "cart", image, 1)
	must(t, s.Client.Create(t.Context(), made))
	for _, object := range objects {
		must(t, unstructured.SetNestedField(object.Object, "deny", "spec", "enforcementAction"))
	}
	must(t, s.Apply(t.Context(), objects...))
	s.unsigned(t, "expansion/cart:evil")
	must(t, s.Move(t.Context(), "expansion/cart:1.4", "expansion/cart:evil"))
	must(t, cluster.Eventually(t.Context(), patience, func(ctx context.Context) error {
		if err := s.Client.Create(ctx, unsigned.DeepCopy(), client.DryRunAll); err == nil {
			return errors.New("deny is not in force")
		}
		return nil
	}))
	s.eventuallyDenied(t, "expansion", image, "no signature found")
	err = s.update(t, made, func(d *appsv1.Deployment) {
		d.Spec.Template.Annotations = map[string]string{"kubectl.kubernetes.io/restartedAt": "now"}
	})
	wantDenial(t, err, "no signature found", "[Implied by countersign-workloads]")
	t.Log(err)
}

func deployment(namespace, name, image string, replicas int32) *appsv1.Deployment {
	labels := map[string]string{"app": name}
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas,
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: image}}},
			},
		},
	}
}

// update changes a Deployment, which its controller changes as well.
func (s *scene) update(t *testing.T, of *appsv1.Deployment, change func(*appsv1.Deployment)) error {
	t.Helper()
	before := &appsv1.Deployment{}
	must(t, s.Client.Get(t.Context(), client.ObjectKeyFromObject(of), before))
	after := before.DeepCopy()
	change(after)
	return s.Client.Patch(t.Context(), after, client.MergeFrom(before))
}

// restart does what kubectl rollout restart does.
func (s *scene) restart(t *testing.T, of *appsv1.Deployment) {
	t.Helper()
	must(t, s.update(t, of, func(d *appsv1.Deployment) {
		d.Spec.Template.Annotations = map[string]string{"kubectl.kubernetes.io/restartedAt": "now"}
	}))
}

func (s *scene) scale(t *testing.T, of *appsv1.Deployment, replicas int32) {
	t.Helper()
	must(t, s.update(t, of, func(d *appsv1.Deployment) { d.Spec.Replicas = &replicas }))
}

// eventuallyRuns waits until a namespace has as many Pods, all of them running
// the image. No kubelet runs them: a Pod that is being deleted counts as gone.
func (s *scene) eventuallyRuns(t *testing.T, namespace, image string, want int) {
	t.Helper()
	must(t, cluster.Eventually(t.Context(), patience, func(ctx context.Context) error {
		pods := &corev1.PodList{}
		if err := s.Client.List(ctx, pods, client.InNamespace(namespace)); err != nil {
			return err
		}
		var images []string
		for _, p := range pods.Items {
			if p.DeletionTimestamp == nil {
				images = append(images, p.Spec.Containers[0].Image)
			}
		}
		if strings.Join(images, " ") != strings.TrimSpace(strings.Repeat(image+" ", want)) {
			return fmt.Errorf("Pods of %s run %q, want %d of %s", namespace, images, want, image)
		}
		return nil
	}))
}

// said is nil when an event of the namespace tells of a refusal of the image.
func (s *scene) said(ctx context.Context, namespace, image string) error {
	events := &corev1.EventList{}
	if err := s.Client.List(ctx, events, client.InNamespace(namespace)); err != nil {
		return err
	}
	for _, event := range events.Items {
		if event.Type == corev1.EventTypeWarning && strings.Contains(event.Message, image) {
			return nil
		}
	}
	return fmt.Errorf("no event in %s tells of %s", namespace, image)
}

func (s *scene) remove(t *testing.T, objects ...*unstructured.Unstructured) {
	t.Helper()
	for _, object := range objects {
		must(t, s.Client.Delete(context.WithoutCancel(t.Context()), object))
	}
}
