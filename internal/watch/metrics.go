package watch

import (
	"time"

	"github.com/countersign-dev/countersign/internal/telemetry"
)

const (
	// maxNamespaces is how many namespaces have figures of their own; what is in
	// others is counted under telemetry.Other.
	maxNamespaces = 1000
	// maxViolations is how many workloads that run what they should not have a series.
	maxViolations = 500
)

// figures are those of a Watch.
func figures() []telemetry.Figure {
	return []telemetry.Figure{
		{Name: "countersign_watch_leader", Help: "Whether this replica is the one that watches."},
		{Name: "countersign_watch_synced", Help: "Whether all pods are known."},
		{Name: "countersign_watch_containers", Help: "Containers that run, by namespace and what is known of their image.", Labels: []string{"namespace", "status"}},
		{Name: "countersign_watch_status_containers", Help: "Containers that run, by what is known of their image.", Labels: []string{"status"}},
		{Name: "countersign_watch_images", Help: "Digests that run."},
		{Name: "countersign_watch_drift_images", Help: "Images in namespaces that are not as their pods, their tag or their replicas say.", Labels: []string{"kind"}},
		{Name: "countersign_watch_ending_images", Help: "Images in namespaces that will not be let run any more within 30 days."},
		{Name: "countersign_watch_next_end_timestamp_seconds", Help: "When the first image will not be let run any more; 0: none ends."},
		{
			Name: "countersign_watch_violation_info", Help: "Workloads that run an image which is neither trusted nor exempt; always 1.",
			Labels: []string{"namespace", "workload", "status", "reason", "digest"},
		},
		{Name: "countersign_watch_violations_dropped", Help: "Workloads that have no series of countersign_watch_violation_info, because there are too many."},
		{Name: "countersign_watch_oldest_check_timestamp_seconds", Help: "When the image was looked at that has not been for the longest; 0: none has been."},
	}
}

// ShowCurrent shows the figures of the Watch that a replica has, if it watches. The
// series are bounded: eight a namespace, and 600 besides; those of what is gone are
// gone.
func ShowCurrent(m *telemetry.Metrics, current func() *Watch) {
	m.Collect(figures(), func(show func(string, float64, ...string)) {
		w := current()
		show("countersign_watch_leader", figure(w != nil))
		if w != nil {
			w.show(show)
		}
	})
}

func (w *Watch) show(show func(string, float64, ...string)) {
	summary := w.Summary(nil)
	show("countersign_watch_synced", figure(summary.Synced))
	counts, others := map[string]map[Status]int{}, noCounts()
	for namespace, of := range summary.Namespaces {
		if len(counts) < maxNamespaces {
			counts[namespace] = of
			continue
		}
		for status, n := range of {
			others[status] += n
		}
	}
	counts[telemetry.Other] = others
	for namespace, of := range counts {
		for status, n := range of {
			show("countersign_watch_containers", float64(n), namespace, string(status))
		}
	}
	for status, n := range summary.Containers {
		show("countersign_watch_status_containers", float64(n), string(status))
	}
	show("countersign_watch_images", float64(summary.Images))
	for kind, n := range summary.Drift {
		show("countersign_watch_drift_images", float64(n), string(kind))
	}
	show("countersign_watch_ending_images", float64(summary.Ending))
	violations, dropped := w.violations()
	for _, v := range violations {
		show("countersign_watch_violation_info", 1, v.namespace, v.workload, v.status, v.reason, v.digest)
	}
	show("countersign_watch_violations_dropped", float64(dropped))
	show("countersign_watch_oldest_check_timestamp_seconds", seconds(summary.Oldest))
	show("countersign_watch_next_end_timestamp_seconds", seconds(summary.NextEnd))
}

// seconds since 1970; 0: never.
func seconds(t *time.Time) float64 {
	if t == nil {
		return 0
	}
	return float64(t.UnixMilli()) / 1000
}

func figure(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}

type violation struct{ namespace, workload, status, reason, digest string }

// violations are the workloads that run what they should not, so many of them, and
// how many more there are.
func (w *Watch) violations() (list []violation, dropped int) {
	seen := map[violation]bool{} // of one platform's digests the beginning may be the same
	for _, row := range w.Rows(Filter{Statuses: violating()}) {
		for _, workload := range row.Workloads() {
			v := violation{row.Namespace, workload, string(row.Status), string(row.Reason), short(row.Digest)}
			if seen[v] {
				continue
			}
			seen[v] = true
			if len(list) == maxViolations {
				dropped++
				continue
			}
			list = append(list, v)
		}
	}
	return list, dropped
}

// short is enough of a digest to find it by.
func short(digest string) string {
	hex, _ := afterLast(digest, ":")
	return hex[:min(len(hex), 12)]
}
