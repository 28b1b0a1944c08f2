package admission

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
)

const (
	// lookEvery is how often the provider's replicas are asked what they were.
	lookEvery = 30 * time.Second
	// slack is how far clocks and the steps of an admission may be apart.
	slack = 10 * time.Second
	// maxKnown bounds the digests that are remembered, and maxGaps the times of which
	// nothing is known; when there are more, it begins anew.
	maxKnown, maxGaps = 200_000, 1000
	// maxPageBytes bounds a replica's answer: 20,000 digests.
	maxPageBytes = 4 << 20
)

// Watcher knows which digests admission was asked about, from the provider's
// replicas. Safe for concurrent use.
type Watcher struct {
	at      *url.URL
	resolve func(ctx context.Context, host string) ([]string, error)
	ask     func(ctx context.Context, host string, from uint64) (Page, error)
	client  *http.Client
	kept    Memory
	log     *slog.Logger
	hosts   map[string]string // who was there last; look's alone

	mu    sync.Mutex // guards all below
	state State
	known map[uint64]struct{} // by the beginning of the digest
}

// State is what is known about what is known.
type State struct {
	// Since is when the first look began, and Full when the last did of which nothing
	// was missing.
	Since time.Time `json:"since"`
	Full  time.Time `json:"full"`
	// Replicas are those that were there then, with what to ask from.
	Replicas map[string]uint64 `json:"replicas"`
	// Gaps are times of which not all is known: a replica has ended in them.
	Gaps []Gap `json:"gaps,omitempty"`
}

// Gap is a time of which not all is known.
type Gap struct {
	From time.Time `json:"from"`
	To   time.Time `json:"to"`
}

// Memory keeps it over a restart.
type Memory interface {
	LoadAdmission() (State, []uint64, error)
	// SaveAdmission keeps the state, and digests beside those that it has; without any
	// in the state it begins anew.
	SaveAdmission(state State, digests []uint64) error
}

// NewWatcher asks at an URL whose host may be several replicas'.
func NewWatcher(at string, kept Memory, log *slog.Logger) (*Watcher, error) {
	u, err := url.Parse(at)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("%q is no URL of the provider's metrics: write http://countersign-answers.countersign-system.svc:8888", at)
	}
	w := &Watcher{
		at: u, resolve: net.DefaultResolver.LookupHost, client: &http.Client{Timeout: 10 * time.Second}, kept: kept, log: log, hosts: map[string]string{}, known: map[uint64]struct{}{},
	}
	w.ask = w.get
	return w, nil
}

// Run asks until ctx ends.
func (a *Watcher) Run(ctx context.Context) error {
	if err := a.remember(); err != nil {
		return err
	}
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for failed := false; ; {
		err := a.look(ctx, time.Now())
		if err != nil && !failed && ctx.Err() == nil {
			a.log.WarnContext(ctx, "it is not known what admission was asked about; trying again", slog.Any("error", err))
		}
		failed = err != nil
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// remember takes up what was known before a restart.
func (a *Watcher) remember() error {
	if a.kept == nil {
		return nil
	}
	state, digests, err := a.kept.LoadAdmission()
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.state = state
	for _, d := range digests {
		a.known[d] = struct{}{}
	}
	return nil
}

// look asks all replicas. Where one does not answer, nothing is known of the time
// since the last look.
func (a *Watcher) look(ctx context.Context, now time.Time) error {
	hosts, err := a.resolve(ctx, a.at.Hostname())
	if err != nil {
		return fmt.Errorf("find the provider's replicas: %w", err)
	}
	a.mu.Lock()
	before := a.state
	a.mu.Unlock()
	state := State{Since: before.Since, Full: now, Replicas: map[string]uint64{}, Gaps: before.Gaps}
	if state.Since.IsZero() {
		state.Since = now
	}
	var fresh []uint64
	lost := false
	for _, host := range hosts {
		page, err := a.read(ctx, host, before.Replicas)
		if err != nil {
			return err
		}
		from, was := before.Replicas[page.Instance]
		lost = lost || was && from < page.First || !was && page.First > 0
		state.Replicas[page.Instance] = page.Next
		for _, d := range page.Digests {
			fresh = append(fresh, beginning(d))
		}
	}
	for instance := range before.Replicas {
		_, still := state.Replicas[instance]
		lost = lost || !still
	}
	if lost {
		state.Gaps = append(append([]Gap(nil), state.Gaps...), Gap{before.Full, now})
	}
	return a.take(state, fresh)
}

// take takes over what a look has found.
func (a *Watcher) take(state State, fresh []uint64) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	var added []uint64
	for _, d := range fresh {
		if _, known := a.known[d]; !known {
			a.known[d] = struct{}{}
			added = append(added, d)
		}
	}
	if len(a.known) > maxKnown || len(state.Gaps) > maxGaps {
		state, added = State{}, nil
		clear(a.known)
	}
	a.state = state
	if a.kept == nil {
		return nil
	}
	return a.kept.SaveAdmission(state, added)
}

// read asks one replica what it has recorded since the last time. Who it is is known
// with its answer only: it is asked again where another one has its address now.
func (a *Watcher) read(ctx context.Context, host string, known map[string]uint64) (Page, error) {
	next, was := known[a.hosts[host]]
	page, err := a.ask(ctx, host, next)
	if err == nil && was && page.Instance != a.hosts[host] {
		page, err = a.ask(ctx, host, 0)
	}
	if err == nil {
		a.hosts[host] = page.Instance
	}
	return page, err
}

func (a *Watcher) get(ctx context.Context, host string, from uint64) (page Page, err error) {
	at := *a.at
	at.Host = net.JoinHostPort(host, a.at.Port())
	at.Path, at.RawQuery = "/answered", "from="+strconv.FormatUint(from, 10)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at.String(), nil)
	if err != nil {
		return page, err
	}
	resp, err := a.client.Do(req)
	if err != nil {
		return page, fmt.Errorf("ask a replica of the provider: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxPageBytes))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("it answered %d", resp.StatusCode)
	}
	if err == nil {
		err = json.Unmarshal(data, &page)
	}
	if err == nil && page.Instance == "" {
		err = errors.New("it does not say who it is")
	}
	if err != nil {
		return page, fmt.Errorf("ask a replica of the provider: %w", err)
	}
	return page, nil
}

// beginning is enough of a digest to know it by.
func beginning(d digest.Digest) uint64 {
	_, text, _ := strings.Cut(string(d), ":")
	var b [8]byte
	if _, err := hex.Decode(b[:], []byte(text[:min(len(text), 16)])); err != nil {
		return 0
	}
	return binary.BigEndian.Uint64(b[:])
}

// Never reports that admission was asked about none of the digests before a pod was
// created, as far as that can be known.
func (a *Watcher) Never(created time.Time, digests ...digest.Digest) bool {
	if a == nil {
		return false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	from, to := created.Add(-slack), created.Add(slack)
	if a.state.Since.IsZero() || from.Before(a.state.Since) || !a.state.Full.After(to) {
		return false
	}
	for _, gap := range a.state.Gaps {
		if from.Before(gap.To) && to.After(gap.From) {
			return false
		}
	}
	for _, d := range digests {
		if _, known := a.known[beginning(d)]; known {
			return false
		}
	}
	return len(digests) > 0
}
