package watch

import (
	"encoding/csv"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	g "maragu.dev/gomponents"
	h "maragu.dev/gomponents/html"
)

// sessionCookie holds the token of whoever has signed in. Nothing but we reads it,
// and no other site has it sent.
const sessionCookie = "countersign"

// signIn is what somebody sees whom nobody knows.
func (s *Server) signIn(w http.ResponseWriter, status int, problem string) {
	s.render(w, status, document("Sign in", false,
		h.H2(g.Text("Sign in")),
		g.If(problem != "", h.P(h.Class("stale"), h.Role("alert"), g.Text(problem))),
		h.P(g.Text("With a token of the cluster you see the namespaces in which you may list pods. One of a ServiceAccount is made so:")),
		h.Pre(h.Code(g.Text("kubectl create token NAME --namespace NAMESPACE"))),
		h.Form(h.Class("filter"), h.Method("post"), h.Action("/login"),
			h.Label(g.Text("Token"), h.Input(h.Type("password"), h.Name("token"), h.Required(), h.AutoFocus(), h.AutoComplete("off"))),
			h.Button(h.Type("submit"), g.Text("Sign in"))),
	))
}

func (s *Server) login(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, 2*maxToken)
	token := strings.TrimSpace(r.PostFormValue("token"))
	_, err := s.viewers.Allowed(r.Context(), token, nil)
	switch {
	case errors.Is(err, ErrAnonymous):
		s.signIn(w, http.StatusUnauthorized, "The API server does not know this token. It may have expired: make a new one.")
	case err != nil:
		s.signIn(w, http.StatusServiceUnavailable, "The API server cannot be asked about the token. Try again.")
	default:
		http.SetCookie(w, &http.Cookie{ //nolint:gosec // G124: port-forward is plain HTTP on loopback; behind TLS the proxy adds Secure
			Name: sessionCookie, Value: token, Path: "/", HttpOnly: true, SameSite: http.SameSiteStrictMode,
		})
		http.Redirect(w, r, "/", http.StatusSeeOther)
	}
}

func (s *Server) logout(w http.ResponseWriter, r *http.Request) {
	http.SetCookie(w, &http.Cookie{Name: sessionCookie, Path: "/", MaxAge: -1, HttpOnly: true, SameSite: http.SameSiteStrictMode}) //nolint:gosec // G124: as above
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

// imagePage shows one image: where it runs, what was found, and what became of it.
func (s *Server) imagePage(w http.ResponseWriter, r *http.Request, allowed func(string) bool) {
	of := r.PathValue("digest")
	if _, err := digest.Parse(of); err != nil {
		s.render(w, http.StatusNotFound, document("No such image", true, h.P(g.Text("That is no digest."))))
		return
	}
	d := s.detail(r, of, allowed)
	if len(d.Rows) == 0 && len(d.History) == 0 {
		s.render(w, http.StatusNotFound, document("No such image", true, h.P(g.Text("No image of this digest runs where you may see it."))))
		return
	}
	now := time.Now()
	s.render(w, http.StatusOK, document("Image "+short(of), true, h.Section(h.ID("results"),
		h.H2(h.Code(g.Text(of))),
		g.Map(d.Rows, func(row Row) g.Node { return rowDetail(row, now) }),
		h.H2(g.Text("What became of it")),
		g.If(len(d.History) == 0, h.P(g.Text("Nothing but what it is."))),
		g.If(len(d.History) > 0, h.Div(h.Class("scroll"), h.Table(
			h.THead(h.Tr(g.Map([]string{"When", "Namespace", "From", "To", "Why"}, func(name string) g.Node { return h.Th(h.Scope("col"), g.Text(name)) }))),
			h.TBody(g.Map(d.History, func(t Transition) g.Node {
				return h.Tr(h.Td(instant(&t.Time)), h.Td(g.Text(t.Namespace)),
					h.Td(g.Text(string(t.From))), h.Td(h.Span(h.Class("status "+string(t.To)), g.Text(string(t.To)))), h.Td(g.Text(t.Message)))
			})),
		))),
	)))
}

// instant is a point in time.
func instant(t *time.Time) g.Node {
	if t == nil {
		return g.Text("never")
	}
	return h.Time(h.DateTime(t.UTC().Format(time.RFC3339)), g.Text(t.UTC().Format("2006-01-02 15:04:05")))
}

// forecastPage shows what ends within 30 days.
func (s *Server) forecastPage(w http.ResponseWriter, _ *http.Request, allowed func(string) bool) {
	endings := s.watch.Forecast(time.Now().Add(Horizon), allowed)
	s.render(w, http.StatusOK, document("What ends", true, h.Section(h.ID("results"),
		h.H2(g.Textf("What ends within 30 days: %d", len(endings))),
		h.P(h.Class("message"), g.Text("From then on these images are not let run any more, if nobody does anything. Sign them again, renew the certificate, or see that the exemption is not needed any more. An end-of-life is what the publisher announces, unsigned: it stops nothing.")),
		g.If(len(endings) > 0, h.Div(h.Class("scroll"), h.Table(
			h.THead(h.Tr(g.Map([]string{"When", "What", "Namespace", "Image", "Used by"}, func(name string) g.Node { return h.Th(h.Scope("col"), g.Text(name)) }))),
			h.TBody(g.Map(endings[:min(len(endings), maxLimit)], func(e Ending) g.Node {
				return h.Tr(h.Td(instant(&e.At)), h.Td(g.Text(string(e.What)+" "+e.Name)), h.Td(g.Text(e.Namespace)),
					h.Td(h.A(h.Href("/image/"+e.Digest), h.Code(g.Text(e.Image)))), h.Td(g.Text(usedBy(e.Workloads))))
			})),
		))),
	)))
}

// rowDetail is an image in a namespace.
func rowDetail(row Row, now time.Time) g.Node {
	fact := func(name string, value ...g.Node) g.Node { return g.Group{h.Dt(g.Text(name)), h.Dd(value...)} }
	text := func(name, value string) g.Node { return g.If(value != "", fact(name, g.Text(value))) }
	return h.Section(
		h.H2(g.Text("In namespace "+row.Namespace+" "), h.Span(h.Class("status "+string(row.Status)), g.Text(string(row.Status)))),
		h.Dl(
			fact("Image", h.Code(g.Text(row.Image))), text("Platform", row.Platform), text("Policy", row.Policy), text("Reason", string(row.Reason)),
			g.Map(row.Drift, func(d Drift) g.Node {
				return fact("Drift", h.Span(h.Class("drift"), g.Text(string(d.Kind))), g.Text(" "+d.Message))
			}),
			text("Message", row.Message), text("What to do", row.Remedy), text("It cannot be looked at since", row.Trouble),
			fact("So since", g.Text(since(row.Since, now))), fact("Looked at", g.Text(since(row.CheckedAt, now)+" ago")),
			g.If(row.Ends != nil, fact("Until", instant(row.Ends), g.Text(", when its "+string(row.ending.What)+" ends "+row.ending.Name))),
		),
		g.If(len(row.Rules) > 0, h.Div(h.Class("scroll"), h.Table(
			h.Caption(g.Text("Rule by rule")),
			h.THead(h.Tr(g.Map([]string{"Rule", "Outcome", "Why"}, func(name string) g.Node { return h.Th(h.Scope("col"), g.Text(name)) }))),
			h.TBody(g.Map(row.Rules, func(r Rule) g.Node {
				return h.Tr(h.Td(g.Text(strings.Repeat("· ", r.Depth)+strings.TrimSpace(r.Rule+" "+r.Name))), h.Td(g.Text(r.Outcome)), h.Td(g.Text(r.Message)))
			})),
		))),
		g.If(len(row.Evidence) > 0, h.Div(h.Class("scroll"), h.Table(
			h.Caption(g.Text("Evidence that was found")),
			h.THead(h.Tr(g.Map([]string{"Check", "Outcome", "Signer", "Evidence", "Why"}, func(name string) g.Node { return h.Th(h.Scope("col"), g.Text(name)) }))),
			h.TBody(g.Map(row.Evidence, func(e Evidence) g.Node {
				return h.Tr(h.Td(g.Text(e.Check+" ("+e.Scheme+")")), h.Td(g.Text(e.Outcome)), h.Td(g.Text(e.Signer)), h.Td(h.Code(g.Text(short(e.Digest))), g.Text(" "+e.ArtifactType)), h.Td(g.Text(e.Message)))
			})),
		))),
		h.Div(h.Class("scroll"), h.Table(
			h.Caption(g.Text("Where it runs")),
			h.THead(h.Tr(g.Map([]string{"Workload", "Pod", "Container", "Use"}, func(name string) g.Node { return h.Th(h.Scope("col"), g.Text(name)) }))),
			h.TBody(g.Map(row.Containers[:min(len(row.Containers), standardLimit)], func(p Place) g.Node {
				return h.Tr(h.Td(g.Text(p.Workload)), h.Td(g.Text(p.Pod)), h.Td(g.Text(p.Container)), h.Td(g.Text(string(p.Use))))
			})),
		)),
		g.If(len(row.Containers) > standardLimit, h.P(g.Textf("and %d more", len(row.Containers)-standardLimit))),
	)
}

// driftWords names the kinds.
func driftWords(list []Drift) string {
	var words []string
	for _, d := range list {
		words = append(words, string(d.Kind))
	}
	return strings.Join(words, " ")
}

// download gives all results that the page would show, as CSV or JSON.
func (s *Server) download(w http.ResponseWriter, r *http.Request, allowed func(string) bool) {
	q := r.URL.Query()
	q.Del("page")
	q.Del("limit")
	all := r.Clone(r.Context())
	all.URL.RawQuery = q.Encode()
	rows, problem := s.matching(all, allowed)
	if problem != "" {
		refuse(w, http.StatusBadRequest, problem)
		return
	}
	if q.Get("format") != "csv" {
		w.Header().Set("Content-Disposition", `attachment; filename="images.json"`)
		answer(w, rows)
		return
	}
	w.Header().Set("Content-Type", "text/csv; charset=utf-8")
	w.Header().Set("Content-Disposition", `attachment; filename="images.csv"`)
	lines := csv.NewWriter(w)
	_ = lines.Write([]string{"namespace", "image", "digest", "status", "reason", "message", "policy", "since", "checkedAt", "containers", "usedBy", "drift", "ends"})
	at := func(t *time.Time) string {
		if t == nil {
			return ""
		}
		return t.UTC().Format(time.RFC3339)
	}
	for _, row := range rows {
		line := []string{row.Namespace, row.Image, row.Digest, string(row.Status), string(row.Reason), row.Message, row.Policy, at(row.Since), at(row.CheckedAt), strconv.Itoa(len(row.Containers)), usedBy(row.Workloads()), driftWords(row.Drift), at(row.Ends)}
		for i, cell := range line {
			if cell != "" && strings.ContainsRune("=+-@\t\r", rune(cell[0])) { // which a spreadsheet would calculate
				line[i] = "'" + cell
			}
		}
		_ = lines.Write(line)
	}
	lines.Flush()
}
