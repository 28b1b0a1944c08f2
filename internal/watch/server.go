package watch

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

const (
	// standardLimit and maxLimit are how many results a page has.
	standardLimit, maxLimit = 100, 1000
	// historyLimit is how much of an image's history is shown, of the latest maxHistory in
	// all namespaces.
	historyLimit, maxHistory = 200, 2000
	// maxQuery bounds what is looked for.
	maxQuery = 256
)

// Viewers says which namespaces the holder of a token may see, or that there is no
// holder: ErrAnonymous.
type Viewers interface {
	Allowed(ctx context.Context, token string, namespaces []string) (func(string) bool, error)
}

// Server serves what a Watch knows: as an API, in the shapes that kube-notary's users
// read, and as a page.
type Server struct {
	watch   *Watch
	history *History // nil: none is kept
	viewers Viewers
	log     *slog.Logger
}

// NewServer makes a Server.
func NewServer(w *Watch, history *History, viewers Viewers, log *slog.Logger) *Server {
	return &Server{w, history, viewers, log}
}

// Handler serves it.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	for pattern, serve := range map[string]func(http.ResponseWriter, *http.Request, func(string) bool){
		"GET /api/v1/summary":         s.summary,
		"GET /api/v1/results":         s.results,
		"GET /api/v1/images/{digest}": s.image,
		"GET /api/v1/forecast":        s.forecast,
		"GET /results":                s.kubeNotary,
		"GET /bulk_sign":              s.bulkSign,
		"GET /download":               s.download,
	} {
		mux.HandleFunc(pattern, s.known(refuseCaller, serve))
	}
	for pattern, serve := range map[string]func(http.ResponseWriter, *http.Request, func(string) bool){
		"GET /{$}":            s.index,
		"GET /image/{digest}": s.imagePage,
		"GET /forecast":       s.forecastPage,
	} {
		mux.HandleFunc(pattern, s.known(s.signIn, serve))
	}
	mux.HandleFunc("POST /login", s.login)
	mux.HandleFunc("POST /logout", s.logout)
	mux.Handle("GET /static/", http.FileServerFS(static))
	mux.HandleFunc("GET /api/v1/openapi.json", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(openAPI)
	})
	return hardened(http.NewCrossOriginProtection().Handler(mux))
}

// hardened says what a browser may do with what we serve: next to nothing.
func hardened(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-store")
		next.ServeHTTP(w, r)
	})
}

// known serves those of whom the API server knows, with what they may see, and turns
// the others away with what is the matter; empty where they have shown nothing.
func (s *Server) known(turnAway func(w http.ResponseWriter, status int, problem string), serve func(http.ResponseWriter, *http.Request, func(string) bool)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		allowed, err := s.viewers.Allowed(r.Context(), tokenOf(r), s.watch.namespaces())
		switch {
		case errors.Is(err, ErrAnonymous):
			turnAway(w, http.StatusUnauthorized, "")
		case err != nil:
			s.log.WarnContext(r.Context(), "nobody can be let in", slog.Any("error", err))
			turnAway(w, http.StatusServiceUnavailable, "The API server cannot be asked who may see what. Try again.")
		default:
			serve(w, r, allowed)
		}
	}
}

// refuseCaller turns a program away.
func refuseCaller(w http.ResponseWriter, status int, problem string) {
	if status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Bearer realm="countersign"`)
		problem = "show a token of the cluster: Authorization: Bearer $(kubectl create token NAME)"
	}
	refuse(w, status, problem)
}

// tokenOf is what a program shows, or what a browser was given when somebody signed in.
func tokenOf(r *http.Request) string {
	if token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
		return strings.TrimSpace(token)
	}
	if cookie, err := r.Cookie(sessionCookie); err == nil {
		return cookie.Value
	}
	return ""
}

func refuse(w http.ResponseWriter, status int, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"error": message})
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	encoder := json.NewEncoder(w) // which escapes <, > and &
	encoder.SetIndent("", "  ")
	_ = encoder.Encode(v)
}

func (s *Server) summary(w http.ResponseWriter, _ *http.Request, allowed func(string) bool) {
	answer(w, s.watch.Summary(allowed))
}

// page is some of the results.
type page struct {
	Items []Row `json:"items"`
	Total int   `json:"total"`
	Page  int   `json:"page"`
	Limit int   `json:"limit"`
}

func (s *Server) results(w http.ResponseWriter, r *http.Request, allowed func(string) bool) {
	p, problem := s.find(r, allowed)
	if problem != "" {
		refuse(w, http.StatusBadRequest, problem)
		return
	}
	answer(w, p)
}

// find gives the page of results that a request asks for, or what is wrong with it.
func (s *Server) find(r *http.Request, allowed func(string) bool) (p page, problem string) {
	p = page{Items: []Row{}, Page: 1, Limit: standardLimit}
	q := r.URL.Query()
	for name, into := range map[string]*int{"page": &p.Page, "limit": &p.Limit} {
		if text := q.Get(name); text != "" {
			n, err := strconv.Atoi(text)
			if err != nil || n < 1 || n > 1_000_000 {
				return page{Limit: standardLimit}, name + " is no number that can be"
			}
			*into = n
		}
	}
	p.Limit = min(p.Limit, maxLimit)
	rows, problem := s.matching(r, allowed)
	if problem != "" {
		return p, problem
	}
	p.Total = len(rows)
	from := min((p.Page-1)*p.Limit, len(rows))
	p.Items = append(p.Items, rows[from:min(from+p.Limit, len(rows))]...)
	return p, ""
}

// matching gives all results that a request asks for, in its order, or what is wrong
// with it.
func (s *Server) matching(r *http.Request, allowed func(string) bool) (rows []Row, problem string) {
	q := r.URL.Query()
	f := Filter{Allowed: allowed, Namespace: q.Get("namespace"), Text: q.Get("q")}
	if len(f.Text) > maxQuery {
		return nil, "q has more than 256 bytes"
	}
	for _, text := range q["status"] {
		for word := range strings.SplitSeq(text, ",") {
			status := Status(strings.ToUpper(word))
			if word != "" && !slices.Contains(Statuses(), status) {
				return nil, "there is no status " + strconv.Quote(word)
			}
			if word != "" {
				f.Statuses = append(f.Statuses, status)
			}
		}
	}
	for word := range strings.SplitSeq(q.Get("drift"), ",") {
		kind := DriftKind(word)
		if word != "" && !slices.Contains(DriftKinds(), kind) {
			return nil, "there is no drift " + strconv.Quote(word)
		}
		if word != "" {
			f.Drifts = append(f.Drifts, kind)
		}
	}
	rows = s.watch.Rows(f)
	for i := range rows {
		rows[i].Rules, rows[i].Evidence = nil, nil
	}
	if !order(rows, q.Get("sort")) {
		return nil, "sort is one of namespace, image, status, since, checked, ends, or the same with - before it"
	}
	return rows, ""
}

// order sorts rows, which come by namespace and image.
func order(rows []Row, by string) bool {
	name, descending := strings.CutPrefix(by, "-")
	at := func(t *time.Time) time.Time {
		if t == nil {
			return time.Time{}
		}
		return *t
	}
	compare, ok := map[string]func(a, b Row) int{
		"":          func(Row, Row) int { return 0 },
		"namespace": func(a, b Row) int { return strings.Compare(a.Namespace, b.Namespace) },
		"image":     func(a, b Row) int { return strings.Compare(a.Image, b.Image) },
		"status": func(a, b Row) int {
			return cmp.Compare(slices.Index(Statuses(), a.Status), slices.Index(Statuses(), b.Status))
		},
		"since":   func(a, b Row) int { return at(a.Since).Compare(at(b.Since)) },
		"checked": func(a, b Row) int { return at(a.CheckedAt).Compare(at(b.CheckedAt)) },
		"ends":    func(a, b Row) int { return at(a.Ends).Compare(at(b.Ends)) },
	}[name]
	if !ok {
		return false
	}
	slices.SortStableFunc(rows, func(a, b Row) int {
		if descending {
			return compare(b, a)
		}
		return compare(a, b)
	})
	return true
}

// detail is an image in all namespaces that may be seen.
type detail struct {
	Digest  string       `json:"digest"`
	Rows    []Row        `json:"rows"`
	History []Transition `json:"history"`
}

func (s *Server) image(w http.ResponseWriter, r *http.Request, allowed func(string) bool) {
	of := r.PathValue("digest")
	if _, err := digest.Parse(of); err != nil {
		refuse(w, http.StatusBadRequest, "not a digest; write it as sha256:…")
		return
	}
	d := s.detail(r, of, allowed)
	if len(d.Rows) == 0 && len(d.History) == 0 {
		refuse(w, http.StatusNotFound, "no image of this digest runs where you may see it")
		return
	}
	answer(w, d)
}

func (s *Server) detail(r *http.Request, of string, allowed func(string) bool) detail {
	d := detail{Digest: of, Rows: []Row{}, History: []Transition{}}
	for _, row := range s.watch.Rows(Filter{Allowed: allowed, Text: of}) {
		if row.Digest == of {
			d.Rows = append(d.Rows, row)
		}
	}
	if s.history == nil {
		return d
	}
	history, err := s.past(r, of)
	if err != nil {
		s.log.WarnContext(r.Context(), "the history cannot be read", slog.Any("error", err))
	}
	d.History = append(d.History, history...)
	return d
}

// past is what became of an image, in namespaces that may be seen; in some of them
// nothing may run any more.
func (s *Server) past(r *http.Request, of string) ([]Transition, error) {
	all, err := s.history.Transitions(maxHistory, func(t Transition) bool { return t.Digest == of })
	if err != nil {
		return nil, err
	}
	namespaces := map[string]bool{}
	for _, t := range all {
		namespaces[t.Namespace] = true
	}
	allowed, err := s.viewers.Allowed(r.Context(), tokenOf(r), slices.Sorted(maps.Keys(namespaces)))
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(t Transition) bool { return !allowed(t.Namespace) })
	return all[:min(len(all), historyLimit)], nil
}

// maxDays bounds how far ahead is looked.
const maxDays = 365

func (s *Server) forecast(w http.ResponseWriter, r *http.Request, allowed func(string) bool) {
	until := time.Now().Add(Horizon)
	if text := r.URL.Query().Get("days"); text != "" {
		days, err := strconv.Atoi(text)
		if err != nil || days < 1 || days > maxDays {
			refuse(w, http.StatusBadRequest, "days is a number from 1 to 365")
			return
		}
		until = time.Now().AddDate(0, 0, days)
	}
	answer(w, map[string]any{"until": until.UTC().Truncate(time.Second), "items": s.watch.Forecast(until, allowed)})
}

// namespaces are those in which something runs.
func (w *Watch) namespaces() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	seen := map[string]bool{}
	for key := range w.rows {
		seen[key.namespace] = true
	}
	return slices.Sorted(maps.Keys(seen))
}
