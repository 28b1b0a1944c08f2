package watch

import (
	"container/heap"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/countersign-dev/countersign/internal/verifier"
)

// setPod takes a pod as it is now; nil containers take it away.
func (w *Watch) setPod(uid types.UID, p *pod) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.replacePod(uid, p)
}

// replacePod puts a pod in the place of what was known of it. The caller holds mu.
func (w *Watch) replacePod(uid types.UID, p *pod) {
	old := w.pods[uid]
	if old.same(p) {
		return
	}
	if p == nil {
		delete(w.pods, uid)
	} else {
		w.pods[uid] = p
		for _, c := range p.containers {
			w.bind(c)
		}
	}
	if old != nil { // after the new ones, so that what both have stays
		for _, c := range old.containers {
			row, check := c.row, c.check
			c.row, c.check = nil, nil
			w.release(c, row, check)
		}
	}
}

// replacePods takes the pods of a namespace, or with none of all, as they are now.
func (w *Watch) replacePods(namespace string, pods []*pod) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := make(map[types.UID]bool, len(pods))
	for _, p := range pods {
		now[p.uid] = true
		w.replacePod(p.uid, p)
	}
	for uid, p := range w.pods {
		if !now[uid] && (namespace == "" || p.namespace == namespace) {
			w.replacePod(uid, nil)
		}
	}
}

// setNode takes the platform of a node, and binds what runs there anew where it is
// another than was known.
func (w *Watch) setNode(name, platform string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.nodes[name] == platform {
		return
	}
	w.nodes[name] = platform
	for _, p := range w.pods {
		if p.node == name {
			w.bindAgain(p.containers)
		}
	}
}

func (w *Watch) deleteNode(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.nodes, name)
}

// rebind binds all containers anew where policies have changed. What they can be
// answered from is remembered, and so are the registries spared.
func (w *Watch) rebind() {
	snapshot := w.options.Snapshot()
	w.mu.Lock()
	defer w.mu.Unlock()
	if snapshot == w.seen {
		return
	}
	w.seen = snapshot
	for _, p := range w.pods {
		w.bindAgain(p.containers)
	}
}

// bindAgain finds the checks of containers once more. The caller holds mu.
func (w *Watch) bindAgain(containers []*container) {
	for _, c := range containers {
		row, check := c.row, c.check
		w.bind(c)
		w.release(c, row, check)
	}
}

// selectAgain does so for all containers of a check.
func (w *Watch) selectAgain(c *check) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var bound []*container
	for r := range c.rows {
		for container := range r.containers {
			if container.check == c {
				bound = append(bound, container)
			}
		}
	}
	w.bindAgain(bound)
}

// bind finds or makes the check and the row of a container. The caller holds mu.
func (w *Watch) bind(c *container) {
	platform := w.nodes[c.pod.node]
	key := checkKey{image: c.image, imageID: c.imageID, platform: platform}
	r, err := runningOf(c.image, c.imageID, platform)
	var outcome Outcome
	if err != nil {
		outcome = failed(err, "")
		key.settled = outcome.Message
	} else {
		request := verifier.Request{Namespace: c.pod.namespace, ServiceAccount: c.pod.account, PullSecrets: c.pod.secrets, Image: r.named}
		if r.digest != "" && !r.isConfig {
			request.Image = r.at(r.digest)
		}
		var verdict verifier.Verdict
		if key.chain, verdict = w.options.Select(request); key.chain == nil {
			outcome = settled(verdict)
			key.settled = c.pod.namespace + " " + string(outcome.Reason) + " " + outcome.Policy
		}
	}
	in := w.rowOf(rowKey{c.pod.namespace, c.image, c.imageID, platform})
	found := w.checks[key]
	if found == nil {
		found = &check{key: key, running: r, rows: map[*row]int{}, index: -1}
		w.checks[key] = found
		if before := c.check; before != nil { // policies have changed, and tags have not
			found.drift, found.sameImage, found.driftDue = before.drift, before.sameImage, before.driftDue
			found.endOfLife, found.lifecycleDue = before.endOfLife, before.lifecycleDue
		}
		if key.chain != nil {
			// The first look may use what is remembered: what policies have changed for
			// costs the registries nothing, and of a new image nothing is remembered.
			w.schedule(found, time.Now(), false)
		}
	}
	if key.chain == nil && found.index < 0 { // new, or it has ended and is the same again
		found.outcome, found.verdict = outcome, outcome
		due := time.Now().Add(w.interval()) // it says when it was looked at
		if outcome.Until.After(time.Now()) && outcome.Until.Before(due) {
			due = later(outcome.Until, time.Now().Add(soonest))
		}
		w.schedule(found, due, false)
	}
	c.row, c.check = in, found
	found.rows[in]++
	in.checks[found]++
	in.containers[c] = struct{}{}
	w.tell(in)
}

// release takes a container from the row and the check that it had, which go with
// their last. The caller holds mu.
func (w *Watch) release(c *container, row *row, check *check) {
	if c.row != row {
		delete(row.containers, c)
	}
	if check.rows[row]--; check.rows[row] == 0 {
		delete(check.rows, row)
	}
	if row.checks[check]--; row.checks[check] == 0 {
		delete(row.checks, check)
	}
	if len(check.rows) == 0 {
		delete(w.checks, check.key)
		check.gone = true
		if check.index >= 0 {
			heap.Remove(&w.queue, check.index)
		}
	}
	if len(row.checks) == 0 {
		delete(w.rows, row.key)
		return
	}
	w.tell(row)
}
