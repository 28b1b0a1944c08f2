package cluster

import (
	"context"
	"encoding/base64"
	"errors"
	"time"
)

// Eventually looks at a condition until it holds, and gives its last error when
// it does not within patience.
func Eventually(ctx context.Context, patience time.Duration, condition func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for {
		err := condition(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		case <-tick.C:
		}
	}
}

func base64Text(content []byte) string { return base64.StdEncoding.EncodeToString(content) }
