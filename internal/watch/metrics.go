package watch

import (
	"github.com/countersign-dev/countersign/internal/telemetry"
)

const (
	// maxNamespaces is how many namespaces have figures of their own; what is in
	// others is counted under telemetry.Other.
	maxNamespaces = 1000
	// maxViolations is how many workloads that run what they should not have a series.
	maxViolations = 500
)

// ShowCurrent shows the figures of the Watch that a replica has, if it watches. The
// series are bounded: eight a namespace, and 600 besides; those of what is gone are
// gone.
func ShowCurrent(m *telemetry.Metrics, current func() *Watch) {
	collect := func(name, help string, labels []string, read func(w *Watch, show func(float64, ...string))) {
		m.Collect(name, help, labels, func(show func(float64, ...string)) {
			if w := current(); w != nil {
				read(w, show)
			}
		})
	}
	m.Collect("countersign_watch_leader", "Whether this replica is the one that watches.", nil, func(show func(float64, ...string)) { show(figure(current() != nil)) })
	collect("countersign_watch_containers", "Containers that run, by namespace and what is known of their image.", []string{"namespace", "status"},
		func(w *Watch, show func(float64, ...string)) {
			summary := w.Summary(nil)
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
					show(float64(n), namespace, string(status))
				}
			}
		})
	collect("countersign_watch_status_containers", "Containers that run, by what is known of their image.", []string{"status"},
		func(w *Watch, show func(float64, ...string)) {
			for status, n := range w.Summary(nil).Containers {
				show(float64(n), string(status))
			}
		})
	collect("countersign_watch_violation_info", "Workloads that run an image which is neither trusted nor exempt; always 1.", []string{"namespace", "workload", "status", "reason", "digest"},
		func(w *Watch, show func(float64, ...string)) {
			violations, _ := w.violations()
			for _, v := range violations {
				show(1, v.namespace, v.workload, v.status, v.reason, v.digest)
			}
		})
	collect("countersign_watch_violations_dropped", "Workloads that have no series of countersign_watch_violation_info, because there are too many.", nil,
		func(w *Watch, show func(float64, ...string)) {
			_, dropped := w.violations()
			show(float64(dropped))
		})
	collect("countersign_watch_images", "Digests that run.", nil, func(w *Watch, show func(float64, ...string)) { show(float64(w.Summary(nil).Images)) })
	collect("countersign_watch_oldest_check_timestamp_seconds", "When the image was looked at that has not been for the longest; 0: none has been.", nil,
		func(w *Watch, show func(float64, ...string)) {
			var at float64
			if oldest := w.Summary(nil).Oldest; oldest != nil {
				at = float64(oldest.UnixMilli()) / 1000
			}
			show(at)
		})
	collect("countersign_watch_synced", "Whether all pods are known.", nil, func(w *Watch, show func(float64, ...string)) {
		show(figure(w.Synced()))
	})
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
	seen := map[violation]bool{}
	for _, row := range w.Rows(Filter{}) {
		if row.Status.success() || row.Status == StatusPending {
			continue
		}
		for _, p := range row.Containers {
			v := violation{row.Namespace, p.Workload, string(row.Status), string(row.Reason), short(row.Digest)}
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
