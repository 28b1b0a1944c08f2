package watch

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/countersign-dev/countersign/internal/verifier"
)

// Horizon is how far people look ahead: 30 days.
const Horizon = 30 * 24 * time.Hour

// Ending is an image that will not be let run any more from some time on, if nobody
// does anything, or that its publisher will not maintain; with the workloads that this
// would strand.
type Ending struct {
	At time.Time `json:"at"`
	// What ends: a signature, a certificate or an exemption, of which Name says which, or
	// the EndOfLife that its publisher announces, which nobody has signed.
	What      verifier.EndKind `json:"what"`
	Name      string           `json:"name,omitempty"`
	Namespace string           `json:"namespace"`
	Image     string           `json:"image"`
	Digest    string           `json:"digest,omitempty"`
	Policy    string           `json:"policy,omitempty"`
	Workloads []string         `json:"workloads"`
}

// Forecast gives what ends until then of what may be seen, the first first.
func (w *Watch) Forecast(until time.Time, allowed func(string) bool) []Ending {
	list := []Ending{}
	for _, row := range w.Rows(Filter{Allowed: allowed}) {
		for _, end := range []verifier.End{row.ending, {What: EndOfLife, At: row.endOfLife}} {
			if end.At.IsZero() || end.At.After(until) {
				continue
			}
			list = append(list, Ending{
				At: end.At, What: end.What, Name: end.Name, Namespace: row.Namespace, Image: row.Image, Digest: row.Digest, Policy: row.Policy, Workloads: row.Workloads(),
			})
		}
	}
	slices.SortStableFunc(list, func(a, b Ending) int {
		return cmp.Or(a.At.Compare(b.At), strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Image, b.Image))
	})
	return list
}
