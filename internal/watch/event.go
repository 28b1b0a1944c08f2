package watch

import (
	"context"
	"encoding/json"
	"log/slog"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
)

const (
	// eventEvery is how often a workload has an Event at most.
	eventEvery = time.Hour
	// maxEvents bounds what waits to be written; what is more is left out.
	maxEvents = 1000
)

// Events writes on workloads what became of their images: one Event an hour each at
// most. Safe for concurrent use.
type Events struct {
	client  rest.Interface
	log     *slog.Logger
	waiting chan Transition
}

// NewEvents needs the rights to create Events; with those to get workloads kubectl
// describe shows them as well.
func NewEvents(config *rest.Config, log *slog.Logger) (*Events, error) {
	config = rest.CopyConfig(config)
	config.QPS, config.Burst = 1, 10 // the API server has more to do
	client, err := coreClient(config)
	if err != nil {
		return nil, err
	}
	return &Events{client, log, make(chan Transition, maxEvents)}, nil
}

// Tell takes what became of an image, if there is room.
func (e *Events) Tell(t Transition) {
	select {
	case e.waiting <- t:
	default:
	}
}

// Run writes until ctx ends.
func (e *Events) Run(ctx context.Context) error {
	type place struct {
		namespace string
		workload  Workload
	}
	written := map[place]time.Time{}
	for {
		select {
		case t := <-e.waiting:
			now := time.Now()
			for at, last := range written {
				if now.Sub(last) >= eventEvery {
					delete(written, at)
				}
			}
			for _, workload := range t.Workloads {
				at := place{t.Namespace, workload}
				if _, recently := written[at]; recently {
					continue
				}
				written[at] = now
				if err := e.write(ctx, t, workload); err != nil && ctx.Err() == nil {
					e.log.WarnContext(ctx, "an Event was not written", slog.String("namespace", t.Namespace), slog.String("workload", workload.Kind+"/"+workload.Name), slog.Any("error", err))
				}
			}
		case <-ctx.Done():
			return nil
		}
	}
}

func (e *Events) write(ctx context.Context, t Transition, workload Workload) error {
	regarding := corev1.ObjectReference{Kind: workload.Kind, Namespace: t.Namespace, Name: workload.Name, APIVersion: apiVersion(workload.Kind)}
	regarding.UID = e.uid(ctx, regarding)
	kind := corev1.EventTypeWarning
	if t.To.settled() {
		kind = corev1.EventTypeNormal
	}
	now := metav1.Now()
	event := &corev1.Event{
		ObjectMeta:     metav1.ObjectMeta{Namespace: t.Namespace, GenerateName: strings.ToLower(workload.Name) + ".countersign-"},
		InvolvedObject: regarding, Type: kind, Reason: "Image" + string(t.To[:1]) + strings.ToLower(string(t.To[1:])), Message: t.Message,
		Source: corev1.EventSource{Component: "countersign-watch"}, FirstTimestamp: now, LastTimestamp: now, Count: 1,
	}
	return e.client.Post().Namespace(t.Namespace).Resource("events").Body(event).Do(ctx).Error()
}

// uid is the workload's, by which kubectl describe finds its Events; empty where
// nobody tells.
func (e *Events) uid(ctx context.Context, of corev1.ObjectReference) types.UID {
	if of.APIVersion == "" {
		return ""
	}
	root := "/apis/"
	if of.APIVersion == "v1" {
		root = "/api/"
	}
	data, err := e.client.Get().AbsPath(root+of.APIVersion).Namespace(of.Namespace).Resource(strings.ToLower(of.Kind)+"s").Name(of.Name).
		SetHeader("Accept", "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1").Do(ctx).Raw()
	var object metav1.PartialObjectMetadata
	if err != nil || json.Unmarshal(data, &object) != nil {
		return ""
	}
	return object.UID
}

// apiVersion is that of a kind of workload; empty for those of others than Kubernetes.
func apiVersion(kind string) string {
	switch kind {
	case "Deployment", "ReplicaSet", "StatefulSet", "DaemonSet":
		return "apps/v1"
	case "Job", "CronJob":
		return "batch/v1"
	case "Pod", "ReplicationController":
		return "v1"
	default:
		return ""
	}
}
