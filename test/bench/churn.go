package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"
)

const (
	// churnRate is how many questions come a second: a busy cluster's, and so few
	// that what grows does it by itself and not for want of time.
	churnRate = 500
	// churnGrowth is how much more the last quarter may take than the first.
	churnGrowth = 1.1
)

// churn has images come in ever other namespaces, so that no question is asked
// twice, and looks at what the provider becomes.
func (b *bench) churn(ctx context.Context) error {
	t, err := b.provider(ctx)
	if err != nil {
		return err
	}
	defer t.stop()
	c, err := dial(ctx, t.address, b.stage.clients)
	if err != nil {
		return err
	}
	defer func() { c.close() }()
	images := b.stage.many
	total := int(b.sizes.churn.Seconds() * churnRate)
	var early, late float64
	began := time.Now()
	for i := range total {
		select {
		case <-time.After(time.Until(began.Add(time.Duration(i) * time.Second / churnRate))):
		case <-ctx.Done():
			return ctx.Err()
		}
		e := newExchangeIn("n"+strconv.Itoa(i), byDigest, images[i%len(images)])
		answer, err := c.ask(e.request)
		if err != nil { // a connection ends after a while; the next is as good
			c.close()
			again, dialErr := dial(ctx, t.address, b.stage.clients)
			if dialErr != nil {
				return errors.Join(err, dialErr)
			}
			c = again
			if answer, err = c.ask(e.request); err != nil {
				return err
			}
		}
		if err := e.decided(answer); err != nil {
			return err
		}
		if i == total/4 || i == total-1 {
			u, err := t.usage(ctx)
			if err != nil {
				return err
			}
			early, late = late, u.resident
		}
	}
	b.stage.registry.Reset()
	b.report.add(measureChurn, fmt.Sprintf("notation, %d images in %d namespaces, %d/s", len(images), total, churnRate), 0, values{
		{"minutes", time.Since(began).Minutes()}, {"MiB after a quarter", early / mib}, {"MiB at the end", late / mib},
	}...)
	if b.sizes.churn >= 10*time.Minute { // before that it is still filling what it may fill
		b.report.demand(late <= churnGrowth*early, "an hour would not end well: %.0f MiB after a quarter, %.0f MiB at the end", early/mib, late/mib)
	}
	return nil
}
