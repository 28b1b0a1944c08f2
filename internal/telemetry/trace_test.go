package telemetry_test

import (
	"compress/gzip"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	spans "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/countersign-dev/countersign/internal/telemetry"
)

// traceCollector takes spans as a real one does, over OTLP.
type traceCollector struct {
	*httptest.Server

	mu    sync.Mutex
	spans []*spans.Span
}

func newTraceCollector(t *testing.T) *traceCollector {
	t.Helper()
	c := &traceCollector{}
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body := io.Reader(r.Body)
		if r.Header.Get("Content-Encoding") == "gzip" {
			unzipped, err := gzip.NewReader(body)
			if err != nil {
				t.Error(err)
				return
			}
			body = unzipped
		}
		content, err := io.ReadAll(body)
		var request collector.ExportTraceServiceRequest
		if err != nil || r.URL.Path != "/v1/traces" || proto.Unmarshal(content, &request) != nil {
			t.Errorf("%s: %v", r.URL.Path, err)
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, resource := range request.GetResourceSpans() {
			for _, scope := range resource.GetScopeSpans() {
				c.spans = append(c.spans, scope.GetSpans()...)
			}
		}
	}))
	t.Cleanup(c.Close)
	return c
}

func TestSpansHaveTheAnswersTraceID(t *testing.T) {
	c := newTraceCollector(t)
	traces, err := telemetry.NewTraces(t.Context(), telemetry.TraceOptions{Endpoint: c.URL, Sample: 1, Version: "test"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, request := traces.Request(t.Context(), "verify", "000102030405060708090a0b0c0d0e0f")
	_, key := traces.Part(ctx, "key")
	key.Set("status", "TRUSTED")
	key.Fail("a test")
	key.End()
	request.End()
	if err := traces.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(c.spans) != 2 {
		t.Fatalf("%d spans", len(c.spans))
	}
	part, whole := c.spans[0], c.spans[1]
	if string(whole.GetTraceId()) != "\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f" || string(part.GetTraceId()) != string(whole.GetTraceId()) {
		t.Errorf("%x, %x", whole.GetTraceId(), part.GetTraceId())
	}
	if string(part.GetParentSpanId()) != string(whole.GetSpanId()) || part.GetName() != "key" || whole.GetKind() != spans.Span_SPAN_KIND_SERVER {
		t.Errorf("%v\n%v", part, whole)
	}
	if a := part.GetAttributes(); len(a) != 1 || a[0].GetKey() != "status" || part.GetStatus().GetMessage() != "a test" {
		t.Error(part)
	}
}

func TestNothingIsTracedUnlessAskedFor(t *testing.T) {
	var none *telemetry.Traces
	ctx, span := none.Request(t.Context(), "verify", "x")
	_, part := none.Part(ctx, "key")
	part.Set("a", "b")
	part.Fail("c")
	part.End()
	span.End()
	if ctx != t.Context() || none.Shutdown(t.Context()) != nil {
		t.Error("something was done")
	}
	c := newTraceCollector(t)
	traces, err := telemetry.NewTraces(t.Context(), telemetry.TraceOptions{Endpoint: c.URL, Sample: 0})
	if err != nil {
		t.Fatal(err)
	}
	_, span = traces.Request(t.Context(), "verify", "x")
	span.End()
	if err := traces.Shutdown(t.Context()); err != nil || len(c.spans) > 0 {
		t.Errorf("%v, %d spans", err, len(c.spans))
	}
}

func TestTraceOptionsThatAreWrong(t *testing.T) {
	for _, options := range []telemetry.TraceOptions{
		{}, {Endpoint: "collector:4318"}, {Endpoint: "grpc://collector"}, {Endpoint: "http://collector:4318", Sample: 2}, {Endpoint: "http://collector:4318", Sample: -1},
	} {
		if _, err := telemetry.NewTraces(t.Context(), options); err == nil {
			t.Errorf("%+v is taken", options)
		}
	}
}
