package main

import (
	"encoding/json"
	"fmt"
	"io"
	"runtime"
	"strings"
	"text/tabwriter"
	"time"
)

// value is a figure with its name and unit.
type value struct {
	name   string
	number float64
}

// values keep their order, also in JSON.
type values []value

// MarshalJSON implements json.Marshaler.
func (v values) MarshalJSON() ([]byte, error) {
	var b strings.Builder
	for i, value := range v {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, "%q:%.6g", value.name, value.number)
	}
	return []byte("{" + b.String() + "}"), nil
}

const (
	measureCold    = "cold"
	measureBatches = "cold, in batches"
	measureTokens  = "cold, with tokens"
	measureExpiry  = "known images, after expiry"
	measureWarm    = "warm"
	measureHerd    = "stampede"
	measureMemory  = "memory"
	measureChurn   = "churn"
	measureErrors  = "registry errors"
	measureTrouble = "bad answers"
	measureWindows = "Retry-After"
	measureOutage  = "outages"
	measureRollout = "rollout"
	measureSlow    = "a slow registry"

	measureNeighbours = "neighbours"
)

// measures are the tables, in their order.
var measures = []string{
	measureCold, measureBatches, measureTokens, measureExpiry, measureWarm, measureHerd, measureMemory, measureChurn, measureErrors, measureTrouble, measureWindows, measureOutage, measureRollout, measureSlow, measureNeighbours,
}

// figure is a line of the report.
type figure struct {
	Measure string `json:"measure"`
	Case    string `json:"case"`
	// RegistryMS is what the registry adds to a request.
	RegistryMS float64 `json:"registryMs"`
	Values     values  `json:"values"`
}

// report is all that was measured, in the order in which it was.
type report struct {
	Sizes       string  `json:"sizes"`
	Go          string  `json:"go"`
	Cores       int     `json:"cores"`
	Pinned      bool    `json:"pinned"`
	LoadBefore  string  `json:"loadBefore"`
	OthersShare float64 `json:"othersShare"`
	Seconds     float64 `json:"seconds"`

	Figures []figure `json:"figures"`
	// Unknown are the formats that the binary has no policies for.
	Unknown []string `json:"unknown,omitempty"`
	// Broken are the demands that do not depend on the machine and do not hold.
	Broken []string `json:"broken"`
}

func (r *report) begin(sizes string, m *machine) {
	r.Sizes, r.Go, r.Cores, r.LoadBefore, r.Broken = sizes, runtime.Version(), runtime.NumCPU(), m.load, []string{}
}

func (r *report) end(m *machine) {
	r.Pinned, r.OthersShare, r.Seconds = m.pinned, m.others(), time.Since(m.began).Seconds()
}

func (r *report) add(measure, name string, latency time.Duration, list ...value) {
	r.Figures = append(r.Figures, figure{measure, name, milliseconds(latency), list})
}

// demand notes what must hold on any machine.
func (r *report) demand(holds bool, format string, args ...any) {
	if !holds {
		r.Broken = append(r.Broken, fmt.Sprintf(format, args...))
	}
}

func (r *report) broken() error {
	if len(r.Broken) == 0 {
		return nil
	}
	return fmt.Errorf("%d demands do not hold", len(r.Broken))
}

func (r *report) json(to io.Writer) error {
	encoder := json.NewEncoder(to)
	encoder.SetIndent("", "  ")
	return encoder.Encode(r)
}

// crowded is the share of the machine above which times say more about the
// neighbours than about us.
const crowded = 0.1

func (r *report) print(to io.Writer) {
	where := "not pinned"
	if r.Pinned {
		where = "the provider and the echo pinned to one of them"
	}
	say := func(format string, args ...any) { _, _ = fmt.Fprintf(to, format+"\n", args...) }
	say("%s run on %d cores, %s; %s; %.0f s", r.Sizes, r.Cores, where, r.Go, r.Seconds)
	say("other processes took %.0f %% of the machine meanwhile; load average before: %s", 100*r.OthersShare, r.LoadBefore)
	if r.OthersShare > crowded {
		say("That is much: compare ratios and counts, not times.")
	}
	for _, measure := range measures {
		var list []figure
		for _, f := range r.Figures {
			if f.Measure == measure {
				list = append(list, f)
			}
		}
		if len(list) > 0 {
			say("")
			printTable(to, list)
		}
	}
	say("")
	for _, name := range r.Unknown {
		say("not measured: %s, which the binary does not know", name)
	}
	for _, broken := range r.Broken {
		say("BROKEN: %s", broken)
	}
}

// printTable prints the figures of one measure.
func printTable(to io.Writer, list []figure) {
	w := tabwriter.NewWriter(to, 0, 0, 2, ' ', tabwriter.AlignRight)
	row := func(first string, rest ...string) {
		_, _ = fmt.Fprintf(w, "%s\t%s\t\n", first, strings.Join(rest, "\t"))
	}
	names := []string{"registry"}
	for _, value := range list[0].Values {
		names = append(names, value.name)
	}
	width := len(list[0].Measure)
	for _, f := range list {
		width = max(width, len(f.Case))
	}
	row(fmt.Sprintf("%-*s", width, strings.ToUpper(list[0].Measure)), names...)
	for _, f := range list {
		cells := []string{fmt.Sprintf("+%.0f ms", f.RegistryMS)}
		for _, value := range f.Values {
			cells = append(cells, short(value.number))
		}
		row(fmt.Sprintf("%-*s", width, f.Case), cells...)
	}
	_ = w.Flush()
}

// short writes a number with three digits that count.
func short(n float64) string {
	switch {
	case n == float64(int64(n)) || n >= 100:
		return fmt.Sprintf("%.0f", n)
	case n >= 10:
		return fmt.Sprintf("%.1f", n)
	case n >= 0.1:
		return fmt.Sprintf("%.2f", n)
	}
	return fmt.Sprintf("%.3f", n)
}
