package watch

import (
	"slices"
	"strings"
	"time"
)

// rowOf finds or makes the row. The caller holds mu.
func (w *Watch) rowOf(key rowKey) *row {
	if r := w.rows[key]; r != nil {
		return r
	}
	r := &row{key: key, checks: map[*check]int{}, containers: map[*container]struct{}{}}
	if w.options.Memory != nil {
		r.known = w.options.Memory.Known(key.String())
	}
	w.rows[key] = r
	return r
}

// worst is the check whose outcome counts: the worst of all that were looked at. Nil
// where none was.
func (r *row) worst() *check {
	var worst *check
	for c := range r.checks {
		if c.outcome.Status != "" && (worst == nil || c.outcome.Status.worse(worst.outcome.Status) ||
			c.outcome.Status == worst.outcome.Status && c.outcome.Message < worst.outcome.Message) {
			worst = c
		}
	}
	return worst
}

// status is what people see: of a row that was not looked at yet, what was known.
func (r *row) status() Status {
	if c := r.worst(); c != nil {
		return c.outcome.Status
	}
	if r.known.Status != "" {
		return r.known.Status
	}
	return StatusPending
}

// tell notes what became of a row, if it has become something else. The caller holds
// mu.
func (w *Watch) tell(r *row) {
	c := r.worst()
	if c == nil {
		return
	}
	o := c.outcome
	before := r.known
	r.known = Known{Status: o.Status, Reason: o.Reason, Since: before.Since, At: o.At}
	if before.Status != o.Status {
		r.known.Since = o.At
	}
	if before != r.known && w.options.Memory != nil {
		w.options.Memory.Keep(r.key.String(), r.known)
	}
	became := before.Status != o.Status && (before.Status != "" || !o.Status.success())
	if r.key.imageID == "" || !became && r.found == o.Status {
		return // of what nobody runs yet nothing is told
	}
	t := Transition{
		Time: o.At, Namespace: r.key.namespace, Image: r.key.image, Digest: r.digest(), From: before.Status, To: o.Status,
		Reason: o.Reason, Message: o.Message, Policy: o.Policy, Workloads: r.workloads(),
	}
	if r.found != o.Status {
		r.found = o.Status
		w.options.Found(r.key.String(), t)
	}
	if !became {
		return
	}
	if w.options.Memory != nil {
		w.options.Memory.Add(t)
	}
	w.options.Changed(t)
}

// Runs reports whether anything runs a row, by its key; while not all pods are known
// anything may.
func (w *Watch) Runs(key string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.synced {
		return true
	}
	parts := strings.SplitN(key, "\n", 4)
	return len(parts) == 4 && w.rows[rowKey{parts[0], parts[1], parts[2], parts[3]}] != nil
}

// digest is what runs, as far as it is known.
func (r *row) digest() string {
	for c := range r.checks {
		if c.running.digest != "" {
			return c.running.digest.String()
		}
		if c.outcome.Digest != "" {
			return c.outcome.Digest.String()
		}
	}
	return ""
}

// maxWorkloads is how many workloads a transition names.
const maxWorkloads = 20

// workloads are those that use the image, in their order.
func (r *row) workloads() []Workload {
	seen := map[Workload]bool{}
	for c := range r.containers {
		seen[c.pod.workload] = true
	}
	list := make([]Workload, 0, len(seen))
	for workload := range seen {
		list = append(list, workload)
	}
	slices.SortFunc(list, func(a, b Workload) int {
		return strings.Compare(a.Kind+" "+a.Name, b.Kind+" "+b.Name)
	})
	return list[:min(len(list), maxWorkloads)]
}

// note takes what a look came to.
func (w *Watch) note(c *check, o Outcome) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if c.gone {
		return
	}
	now := time.Now()
	if o.Status == StatusError {
		c.failures++
		c.trouble = o
		if c.failures >= patientFailures || !c.wasKnown() {
			c.outcome = o
		}
		pause := firstPause << min(c.failures-1, 10)
		w.schedule(c, now.Add(min(pause, w.interval())), c.verdict.Status != "")
	} else {
		c.failures, c.trouble = 0, Outcome{}
		c.outcome, c.verdict = o, o
		due := now.Add(w.interval())
		if o.Until.After(now) && o.Until.Before(due) {
			due = later(o.Until, now.Add(soonest))
		}
		w.schedule(c, due, true)
	}
	for r := range c.rows {
		w.tell(r)
	}
}

// wasKnown reports whether there is something to show while looking fails: a verdict,
// or what was known of each of its rows before.
func (c *check) wasKnown() bool {
	if c.verdict.Status != "" {
		return true
	}
	for r := range c.rows {
		if r.known.Status == "" {
			return false
		}
	}
	return true
}

// interval is how long it is until an image is looked at again.
func (w *Watch) interval() time.Duration { return w.spread(w.options.Interval) }

func (w *Watch) spread(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (1 - spread + 2*spread*w.options.Jitter()))
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
