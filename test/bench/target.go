package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/countersign-dev/countersign/test/binary"
)

// target is a process that answers: the provider, or the echo.
type target struct {
	address string
	metrics string // host:port
	stop    func()
}

// usage is what a process has used so far.
type usage struct {
	cpu      time.Duration
	resident float64 // bytes
}

// usage asks the process itself: both show the same figures of Prometheus'
// client library, which reads them from the kernel.
func (t *target) usage(ctx context.Context) (usage, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+t.metrics+"/metrics", nil)
	if err != nil {
		return usage{}, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return usage{}, err
	}
	defer func() { _ = response.Body.Close() }()
	var u usage
	found := 0
	lines := bufio.NewScanner(response.Body)
	for lines.Scan() {
		name, number, _ := strings.Cut(lines.Text(), " ")
		switch name {
		case "process_cpu_seconds_total", "process_resident_memory_bytes":
			figure, err := strconv.ParseFloat(number, 64)
			if err != nil {
				return usage{}, err
			}
			found++
			if name == "process_cpu_seconds_total" {
				u.cpu = time.Duration(figure * float64(time.Second))
			} else {
				u.resident = figure
			}
		}
	}
	if found != 2 {
		return usage{}, errors.Join(lines.Err(), errors.New("/metrics does not say what the process uses"))
	}
	return u, nil
}

// provider starts the real binary afresh, with nothing remembered.
func (b *bench) provider(ctx context.Context) (*target, error) {
	var server *binary.Server
	err := b.machine.onProviderCore(func() (err error) {
		server, err = binary.Start(ctx, binary.Options{
			Path: b.stage.binary, Dir: b.stage.dir, Config: b.stage.Policies, Authority: b.stage.authority,
		})
		return err
	})
	if err != nil {
		return nil, err
	}
	t := &target{address: server.Provider, metrics: server.Metrics, stop: func() { _ = server.Stop() }}
	if err := server.Ready(ctx); err != nil {
		t.stop()
		return nil, err
	}
	return t, nil
}

// echo starts the echo provider, which answers each key with the value.
func (b *bench) echo(ctx context.Context, value []byte) (*target, error) {
	dir := filepath.Join(b.stage.dir, "echo")
	pair, err := b.stage.authority.Issue("echo")
	if err != nil {
		return nil, err
	}
	if _, _, err := pair.Write(dir); err != nil {
		return nil, err
	}
	if err := firstOf(
		os.WriteFile(filepath.Join(dir, "ca.crt"), b.stage.authority.PEM, 0o600),
		os.WriteFile(filepath.Join(dir, "value.json"), value, 0o600),
	); err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	command := exec.CommandContext(ctx, self, "-echo", dir)
	command.Stderr = b.progress
	// It ends when this pipe does, however we end.
	life, err := command.StdinPipe()
	if err != nil {
		return nil, err
	}
	said, err := command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := b.machine.onProviderCore(command.Start); err != nil {
		return nil, err
	}
	stop := func() {
		_ = life.Close()
		_, _ = io.Copy(io.Discard, said)
		_ = command.Wait()
	}
	var where echoAddresses
	if err := json.NewDecoder(said).Decode(&where); err != nil {
		stop()
		return nil, fmt.Errorf("the echo provider does not listen: %w", err)
	}
	return &target{address: where.Provider, metrics: where.Metrics, stop: stop}, nil
}
