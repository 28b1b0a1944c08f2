package telemetry

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/url"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// TraceOptions say where traces go.
type TraceOptions struct {
	// Endpoint of a collector that speaks OTLP over HTTP: http://collector:4318.
	Endpoint string
	// Sample is the part of requests that is traced, from 0 to 1.
	Sample float64
	// Version of this binary.
	Version string
}

// Traces sends spans to a collector. A nil Traces sends nothing and costs
// nothing. Safe for concurrent use.
type Traces struct {
	provider *sdktrace.TracerProvider
	tracer   trace.Tracer
}

// NewTraces connects to the collector when there is something to send: one that
// is away is no error, and nobody waits for it.
func NewTraces(ctx context.Context, options TraceOptions) (*Traces, error) {
	u, err := url.Parse(options.Endpoint)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("%q is not the URL of a collector: write http://host:4318", options.Endpoint)
	}
	if options.Sample < 0 || options.Sample > 1 {
		return nil, fmt.Errorf("a part of requests is from 0 to 1, not %v", options.Sample)
	}
	exporter, err := otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(options.Endpoint+tracePath(u)))
	if err != nil {
		return nil, err
	}
	provider := sdktrace.NewTracerProvider(
		sdktrace.WithBatcher(exporter),
		sdktrace.WithIDGenerator(sameID{}),
		sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.TraceIDRatioBased(options.Sample))),
		sdktrace.WithResource(resource.NewSchemaless(
			attribute.String("service.name", "countersign"), attribute.String("service.version", options.Version))),
	)
	return &Traces{provider, provider.Tracer("github.com/countersign-dev/countersign")}, nil
}

// tracePath is where a collector takes traces, unless the URL says another.
func tracePath(u *url.URL) string {
	if u.Path == "" || u.Path == "/" {
		return "/v1/traces"
	}
	return ""
}

// Shutdown sends what waits.
func (t *Traces) Shutdown(ctx context.Context) error {
	if t == nil {
		return nil
	}
	return t.provider.Shutdown(ctx)
}

// Request begins the span of a request under the trace id that its answer carries.
func (t *Traces) Request(ctx context.Context, name, traceID string) (context.Context, Span) {
	if t == nil {
		return ctx, Span{}
	}
	if id, err := trace.TraceIDFromHex(traceID); err == nil {
		ctx = context.WithValue(ctx, idKey{}, id)
	}
	ctx, span := t.tracer.Start(ctx, name, trace.WithSpanKind(trace.SpanKindServer))
	return ctx, Span{span}
}

// Part begins the span of a part of what ctx is about.
func (t *Traces) Part(ctx context.Context, name string) (context.Context, Span) {
	if t == nil {
		return ctx, Span{}
	}
	ctx, span := t.tracer.Start(ctx, name)
	return ctx, Span{span}
}

// Span is one piece of work. The zero Span is none.
type Span struct{ span trace.Span }

// Set notes something about the work.
func (s Span) Set(key, value string) {
	if s.span != nil {
		s.span.SetAttributes(attribute.String(key, value))
	}
}

// Fail notes that the work did not come to its end.
func (s Span) Fail(why string) {
	if s.span != nil {
		s.span.SetStatus(codes.Error, why)
	}
}

// End ends the work.
func (s Span) End() {
	if s.span != nil {
		s.span.End()
	}
}

// idKey is where a context has the trace id of the answer.
type idKey struct{}

// sameID gives a trace the id that the answer carries, by which people look for
// it.
type sameID struct{}

// NewIDs implements sdktrace.IDGenerator.
func (g sameID) NewIDs(ctx context.Context) (trace.TraceID, trace.SpanID) {
	id, ok := ctx.Value(idKey{}).(trace.TraceID)
	if !ok {
		_, _ = rand.Read(id[:]) // it does not fail
	}
	return id, g.NewSpanID(ctx, id)
}

// NewSpanID implements sdktrace.IDGenerator.
func (sameID) NewSpanID(context.Context, trace.TraceID) (id trace.SpanID) {
	_, _ = rand.Read(id[:])
	return id
}
