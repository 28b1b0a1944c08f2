package telemetry

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync/atomic"
)

const (
	// decisionQueue is how many lines wait for the disk; what comes then is
	// dropped and counted, so that no admission waits for a log.
	decisionQueue = 4096
	// defaultDecisionBytes and defaultDecisionFiles bound what is kept.
	defaultDecisionBytes = 64 << 20
	defaultDecisionFiles = 4
)

// DecisionLogOptions say where decisions are written.
type DecisionLogOptions struct {
	// Path of the file. Beside it are the ones before, as PATH.1 and so on.
	Path string
	// MaxBytes of a file before the next is begun: 64 MiB. MaxFiles in all: 4.
	MaxBytes int64
	MaxFiles int
	// Redact names the fields whose values are replaced by a hash of theirs: equal
	// values stay equal, and nobody reads them.
	Redact []string
	// Metrics counts what was dropped; nil: nobody.
	Metrics *Metrics
	// Log hears of what cannot be written; nil: nobody.
	Log *slog.Logger
}

// DecisionLog writes decisions as JSON lines into a file that is rotated, for
// whoever collects them. Safe for concurrent use.
type DecisionLog struct {
	options DecisionLogOptions
	lines   chan []byte
	dropped atomic.Uint64
	file    *os.File // of Run
	size    int64
}

// DecisionFields are those that a line has, beside its time.
func DecisionFields() []string {
	return []string{
		"traceID", "endpoint", "namespace", "serviceAccount", "image", "digest", "status", "reason", "audited", "policy", "signers", "message", "seconds", "repeat",
	}
}

// OpenDecisionLog opens the file, to append to it.
func OpenDecisionLog(options DecisionLogOptions) (*DecisionLog, error) {
	if options.MaxBytes <= 0 {
		options.MaxBytes = defaultDecisionBytes
	}
	if options.MaxFiles <= 0 {
		options.MaxFiles = defaultDecisionFiles
	}
	if options.Log == nil {
		options.Log = slog.New(slog.DiscardHandler)
	}
	for _, field := range options.Redact {
		if !slices.Contains(DecisionFields(), field) {
			return nil, fmt.Errorf("a decision has no field %q", field)
		}
	}
	d := &DecisionLog{options: options, lines: make(chan []byte, decisionQueue)}
	if err := d.open(); err != nil {
		return nil, err
	}
	if options.Metrics != nil {
		options.Metrics.CounterFunc("countersign_decision_log_dropped_total", "Decisions that were not written, because the disk is slow or full.", nil,
			func() float64 { return float64(d.dropped.Load()) })
	}
	return d, nil
}

// Logger writes lines: one for each call, without a level and a message.
func (d *DecisionLog) Logger() *slog.Logger {
	redaction := newRedaction()
	return slog.New(slog.NewJSONHandler(d, &slog.HandlerOptions{ReplaceAttr: func(groups []string, attr slog.Attr) slog.Attr {
		switch {
		case len(groups) == 0 && (attr.Key == slog.LevelKey || attr.Key == slog.MessageKey):
			return slog.Attr{}
		case slices.Contains(d.options.Redact, attr.Key) && attr.Value.String() != "":
			sum := sha256.Sum256([]byte(attr.Value.String()))
			return slog.String(attr.Key, "redacted:"+hex.EncodeToString(sum[:6]))
		case attr.Value.Kind() == slog.KindString:
			return slog.String(attr.Key, redaction.clean(attr.Value.String()))
		}
		return attr
	}}))
}

// Write takes a line over, or drops it when too many wait.
func (d *DecisionLog) Write(line []byte) (int, error) {
	select {
	case d.lines <- append([]byte(nil), line...):
	default:
		d.dropped.Add(1)
	}
	return len(line), nil
}

// Run writes lines until ctx ends, and then those that wait.
func (d *DecisionLog) Run(ctx context.Context) error {
	defer func() { _ = d.file.Close() }()
	for {
		select {
		case line := <-d.lines:
			d.write(ctx, line)
		case <-ctx.Done():
			for {
				select {
				case line := <-d.lines:
					d.write(ctx, line)
				default:
					return d.file.Sync()
				}
			}
		}
	}
}

func (d *DecisionLog) write(ctx context.Context, line []byte) {
	var err error
	if d.size > 0 && d.size+int64(len(line)) > d.options.MaxBytes {
		err = d.rotate()
	}
	n, errWrite := d.file.Write(line)
	d.size += int64(n)
	if err := errors.Join(err, errWrite); err != nil {
		if d.dropped.Add(1) == 1 {
			d.options.Log.ErrorContext(ctx, "decisions cannot be written", slog.Any("error", err))
		}
	}
}

// rotate begins the next file; PATH.1 is the one before.
func (d *DecisionLog) rotate() error {
	err := d.file.Close()
	for n := d.options.MaxFiles - 1; n >= 1; n-- {
		from := d.options.Path
		if n > 1 {
			from = fmt.Sprintf("%s.%d", d.options.Path, n-1)
		}
		if e := os.Rename(from, fmt.Sprintf("%s.%d", d.options.Path, n)); e != nil && !errors.Is(e, os.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}
	if d.options.MaxFiles == 1 {
		err = errors.Join(err, os.Remove(d.options.Path))
	}
	return errors.Join(err, d.open())
}

func (d *DecisionLog) open() error {
	file, err := os.OpenFile(d.options.Path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	info, err := file.Stat()
	if err != nil {
		return errors.Join(err, file.Close())
	}
	d.file, d.size = file, info.Size()
	return nil
}
