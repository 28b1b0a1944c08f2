package watch

import (
	"embed"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	g "maragu.dev/gomponents"
	h "maragu.dev/gomponents/html"
)

//go:embed static
var static embed.FS

// staleAge is how old the oldest look may be before the page says so.
const staleAge = 2 * time.Hour

// document is a whole page. All text in it is escaped where it is put in.
func document(title string, shown bool, body ...g.Node) g.Node {
	return h.Doctype(h.HTML(h.Lang("en"),
		h.Head(
			h.Meta(h.Charset("utf-8")), h.Meta(h.Name("viewport"), h.Content("width=device-width, initial-scale=1")),
			h.TitleEl(g.Text(title)), h.Link(h.Rel("stylesheet"), h.Href("/static/page.css")), h.Script(h.Src("/static/page.js"), h.Defer()),
		),
		h.Body(
			h.A(h.Class("skip"), h.Href("#content"), g.Text("To the content")),
			h.Header(
				h.H1(h.A(h.Href("/"), g.Text("Countersign"))), h.P(g.Text("What runs now")),
				g.If(shown, h.Form(h.Method("post"), h.Action("/logout"), h.Button(h.Type("submit"), g.Text("Sign out")))),
			),
			h.Main(append([]g.Node{h.ID("content")}, body...)...),
		),
	))
}

func (s *Server) render(w http.ResponseWriter, status int, page g.Node) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_ = page.Render(w)
}

// index shows what runs: counts by namespace, and the images that are asked for.
func (s *Server) index(w http.ResponseWriter, r *http.Request, allowed func(string) bool) {
	p, problem := s.find(r, allowed)
	status := http.StatusOK
	if problem != "" {
		status = http.StatusBadRequest
	}
	summary := s.watch.Summary(allowed)
	s.render(w, status, document("What runs now", true,
		age(summary, time.Now()),
		g.If(problem != "", h.P(h.Class("stale"), h.Role("alert"), g.Text(problem))),
		counts(summary, r.URL.Query()),
		notable(summary, r.URL.Query()),
		h.Section(h.ID("results"), h.Aria("label", "Images"),
			h.H2(g.Textf("Images: %d", p.Total)),
			filterForm(summary, r.URL.Query()),
			table(p, r.URL.Query(), time.Now()),
			pages(p, r.URL.Query()),
			h.P(h.Class("downloads"),
				h.A(h.Href("/download?format=csv&"+without(r.URL.Query(), "page", "limit").Encode()), h.Download("images.csv"), g.Text("Download as CSV")),
				h.A(h.Href("/download?format=json&"+without(r.URL.Query(), "page", "limit").Encode()), h.Download("images.json"), g.Text("Download as JSON"))),
		),
	))
}

// age says how old what is shown is.
func age(s Summary, now time.Time) g.Node {
	text, class := "All images were looked at within "+since(s.Oldest, now)+".", "message"
	switch {
	case !s.Synced:
		text, class = "The pods of the cluster are not known yet: what is shown is not all.", "stale"
	case s.Oldest == nil:
		text = "Nothing was looked at yet."
	case now.Sub(*s.Oldest) > staleAge:
		text, class = "Some images were last looked at "+since(s.Oldest, now)+" ago. Look at the log of countersign watch, and for ERROR below.", "stale"
	case s.Checked == nil:
		text = "The first look at all images is under way."
	}
	return h.P(h.ID("age"), h.Class(class), h.Role("status"), g.Text(text))
}

// since is about how long ago something was.
func since(t *time.Time, now time.Time) string {
	if t == nil {
		return "never"
	}
	switch d := now.Sub(*t); {
	case d < 2*time.Minute:
		return strconv.Itoa(max(int(d.Seconds()), 0)) + " s"
	case d < 2*time.Hour:
		return strconv.Itoa(int(d.Minutes())) + " min"
	case d < 48*time.Hour:
		return strconv.Itoa(int(d.Hours())) + " h"
	default:
		return strconv.Itoa(int(d.Hours()/24)) + " days"
	}
}

// link is the page with some of its query changed; an empty value takes it out.
func link(q url.Values, changes ...string) string {
	next := without(q, "page")
	for i := 0; i+1 < len(changes); i += 2 {
		if next.Del(changes[i]); changes[i+1] != "" {
			next.Set(changes[i], changes[i+1])
		}
	}
	if len(next) == 0 {
		return "/"
	}
	return "/?" + next.Encode()
}

func without(q url.Values, names ...string) url.Values {
	next := url.Values{}
	for name, values := range q {
		if !slices.Contains(names, name) && len(values) > 0 && values[0] != "" {
			next[name] = values
		}
	}
	return next
}

// counts is the table of containers by namespace and status.
func counts(s Summary, q url.Values) g.Node {
	names := slices.Sorted(maps.Keys(s.Namespaces))
	line := func(head g.Node, namespace string, of map[Status]int) g.Node {
		return h.Tr(h.Th(h.Scope("row"), head), g.Map(Statuses(), func(status Status) g.Node {
			n := of[status]
			if n == 0 {
				return h.Td(h.Class("number none"), g.Text("0"))
			}
			return h.Td(h.Class("number"), h.A(h.Href(link(q, "namespace", namespace, "status", string(status))), g.Text(strconv.Itoa(n))))
		}))
	}
	return h.Section(h.ID("summary"), h.Aria("label", "Containers by namespace"),
		h.H2(g.Textf("Containers by namespace: %d images", s.Images)),
		h.Div(h.Class("scroll"), h.Table(
			h.THead(h.Tr(h.Th(h.Scope("col"), g.Text("Namespace")), g.Map(Statuses(), func(status Status) g.Node {
				return h.Th(h.Scope("col"), h.Class("number"), h.Span(h.Class("status "+string(status)), g.Text(string(status))))
			}))),
			h.TBody(line(g.Text("all"), "", s.Containers), g.Map(names, func(name string) g.Node {
				return line(h.A(h.Href(link(q, "namespace", name)), g.Text(name)), name, s.Namespaces[name])
			})),
		)),
	)
}

// notable leads to what is not as somebody would expect, and to what ends.
func notable(s Summary, q url.Values) g.Node {
	return h.P(h.Class("downloads"),
		g.Map(DriftKinds(), func(kind DriftKind) g.Node {
			return g.If(s.Drift[kind] > 0, h.A(h.Href(link(q, "drift", string(kind))), g.Textf("%s: %d", kind, s.Drift[kind])))
		}),
		h.A(h.Href("/forecast"), g.Textf("ends within 30 days: %d", s.Ending)),
	)
}

// filterForm narrows the images; its state is in the URL.
func filterForm(s Summary, q url.Values) g.Node {
	names := slices.Sorted(maps.Keys(s.Namespaces))
	option := func(value, text, chosen string) g.Node {
		return h.Option(h.Value(value), g.If(value == chosen, h.Selected()), g.Text(text))
	}
	return h.Form(h.Class("filter"), h.Method("get"), h.Action("/"), h.Role("search"),
		h.Label(g.Text("Search"), h.Input(h.Type("search"), h.Name("q"), h.Value(q.Get("q")), h.Placeholder("image, digest, workload, message"), h.MaxLength(strconv.Itoa(maxQuery)))),
		h.Label(g.Text("Namespace"), h.Select(h.Name("namespace"), option("", "all", q.Get("namespace")), g.Map(names, func(name string) g.Node { return option(name, name, q.Get("namespace")) }))),
		h.Label(g.Text("Status"), h.Select(h.Name("status"), option("", "all", q.Get("status")), g.Map(Statuses(), func(status Status) g.Node {
			return option(string(status), string(status), strings.ToUpper(q.Get("status")))
		}))),
		h.Label(g.Text("Drift"), h.Select(h.Name("drift"), option("", "any or none", q.Get("drift")), g.Map(DriftKinds(), func(kind DriftKind) g.Node {
			return option(string(kind), string(kind), q.Get("drift"))
		}))),
		g.If(q.Get("sort") != "", h.Input(h.Type("hidden"), h.Name("sort"), h.Value(q.Get("sort")))),
		h.Button(h.Type("submit"), g.Text("Show")), h.A(h.Href("/"), g.Text("Show all")),
	)
}

// table is a page of images.
func table(p page, q url.Values, now time.Time) g.Node {
	if len(p.Items) == 0 {
		return h.P(g.Text("Nothing that you may see is so."))
	}
	column := func(name, by string) g.Node {
		next, sorted := by, "none"
		switch q.Get("sort") {
		case by:
			next, sorted = "-"+by, "ascending"
		case "-" + by:
			sorted = "descending"
		}
		return h.Th(h.Scope("col"), h.Aria("sort", sorted), h.A(h.Href(link(q, "sort", next)), g.Text(name)))
	}
	return h.Div(h.Class("scroll"), h.Table(
		h.THead(h.Tr(column("Status", "status"), column("Namespace", "namespace"), column("Image", "image"), h.Th(h.Scope("col"), g.Text("Used by")), column("Since", "since"), column("Looked at", "checked"))),
		h.TBody(g.Map(p.Items, func(row Row) g.Node {
			name := h.Code(g.Text(row.Image))
			if row.Digest != "" {
				name = h.A(h.Href("/image/"+row.Digest), name)
			}
			return h.Tr(
				h.Td(h.Span(h.Class("status "+string(row.Status)), g.Text(string(row.Status)))),
				h.Td(g.Text(row.Namespace)),
				h.Td(name, g.If(row.Digest != "", h.Span(g.Text(" "+short(row.Digest)))), g.Map(row.Drift, func(d Drift) g.Node { return h.Span(h.Class("drift"), g.Text(" "+string(d.Kind))) }), g.If(!row.Status.success(), h.Div(h.Class("message"), g.Text(row.Message)))),
				h.Td(g.Text(usedBy(row.Workloads()))),
				h.Td(g.Text(since(row.Since, now))),
				h.Td(g.Text(since(row.CheckedAt, now))),
			)
		})),
	))
}

// usedBy names workloads, the first three of them.
func usedBy(names []string) string {
	more := ""
	if len(names) > 3 {
		more = fmt.Sprintf(" and %d more", len(names)-3)
		names = names[:3]
	}
	return strings.Join(names, ", ") + more
}

func pages(p page, q url.Values) g.Node {
	last := max((p.Total+p.Limit-1)/p.Limit, 1)
	if last == 1 {
		return g.Group{}
	}
	to := func(n int) string {
		next := without(q, "page")
		next.Set("page", strconv.Itoa(n))
		return "/?" + next.Encode()
	}
	return h.Nav(h.Class("pages"), h.Aria("label", "Pages"),
		g.If(p.Page > 1, h.A(h.Href(to(p.Page-1)), h.Rel("prev"), g.Text("Before"))),
		h.Span(g.Textf("Page %d of %d", min(p.Page, last), last)),
		g.If(p.Page < last, h.A(h.Href(to(p.Page+1)), h.Rel("next"), g.Text("After"))),
	)
}
