package watch

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
	corev1 "k8s.io/api/core/v1"

	"github.com/countersign-dev/countersign/internal/verifier"
)

// viewers knows two tokens: all's, and shop's.
type viewers struct{}

func (viewers) Allowed(_ context.Context, token string, _ []string) (func(string) bool, error) {
	switch token {
	case "all":
		return func(string) bool { return true }, nil
	case "shop":
		return func(namespace string) bool { return namespace == "shop" }, nil
	case "later":
		return nil, fmt.Errorf("away")
	}
	return nil, ErrAnonymous
}

const hostile = `<img src=x onerror=alert(1)>"'&`

// shown is a server over some pods that were looked at.
func shown(t *testing.T, pods ...*corev1.Pod) (*Server, *History) {
	t.Helper()
	history := openHistory(t, filepath.Join(t.TempDir(), "history"))
	var w *Watch
	synctest.Test(t, func(t *testing.T) {
		sc := newScene(t, registry(indexDigest, []digest.Digest{indexDigest}, []digest.Digest{moved}))
		sc.options.Memory = history
		sc.run(t, func() {
			sc.add(pods...)
			settle(time.Minute)
		})
		sc.mu.Lock()
		defer sc.mu.Unlock()
		w = sc.Watch
	})
	return NewServer(w, history, viewers{}, slog.New(slog.DiscardHandler)), history
}

func ask(t *testing.T, s *Server, token, path string) (*http.Response, string) {
	t.Helper()
	req := httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil)
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, req)
	body, err := io.ReadAll(w.Result().Body)
	if err != nil {
		t.Fatal(err)
	}
	return w.Result(), string(body)
}

func podsOfTheShop() []*corev1.Pod {
	evil := podRunning("shop", hostile, moved)
	evil.Spec.Containers[0].Name = hostile
	evil.Status.ContainerStatuses[0].Name = hostile
	strange := podRunning("pay", "strange", indexDigest)
	strange.Status.ContainerStatuses[0].ImageID = hostile
	return []*corev1.Pod{podRunning("shop", "cart", indexDigest), evil, podRunning("pay", "till", digest.FromString("unsigned")), strange}
}

// TestThePageShowsWhatRuns, to each what they may see, and as text whatever it is.
func TestThePageShowsWhatRuns(t *testing.T) {
	named := podRunning("shop", "named", moved)
	named.Spec.Containers[0].Image = hostile
	s, _ := shown(t, append(podsOfTheShop(), named)...)
	resp, body := ask(t, s, "all", "/")
	if resp.StatusCode != http.StatusOK || !strings.Contains(body, `<span class="status UNTRUSTED">UNTRUSTED</span>`) || !strings.Contains(body, "pay") {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	for _, path := range []string{"/", "/?q=" + url.QueryEscape(hostile), "/?namespace=" + url.QueryEscape(hostile), "/?status=" + url.QueryEscape(hostile), "/?sort=" + url.QueryEscape(hostile), "/image/" + moved.String()} {
		_, body := ask(t, s, "all", path)
		if strings.Contains(body, "<img") || strings.Contains(body, `"'&`) {
			t.Errorf("%s: what is hostile is no text: %s", path, body)
		}
	}
	if _, body := ask(t, s, "shop", "/"); strings.Contains(body, "till") || strings.Contains(body, ">pay<") {
		t.Error("one sees another's namespace")
	}
	resp, body = ask(t, s, "all", "/image/"+moved.String())
	if resp.StatusCode != http.StatusOK || !strings.Contains(body, "mallory") || !strings.Contains(body, "Where it runs") || !strings.Contains(body, "What became of it") {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	for _, path := range []string{"/image/x", "/image/" + digest.FromString("none").String()} {
		if resp, _ := ask(t, s, "all", path); resp.StatusCode != http.StatusNotFound {
			t.Errorf("%s: %d", path, resp.StatusCode)
		}
	}
	for name, csp := range map[string]string{"/": "", "/static/page.css": "", "/static/page.js": ""} {
		resp, _ := ask(t, s, "all", name)
		if csp = resp.Header.Get("Content-Security-Policy"); resp.StatusCode != http.StatusOK || strings.Contains(csp, "unsafe") || !strings.HasPrefix(csp, "default-src 'none'") {
			t.Errorf("%s: %d %s", name, resp.StatusCode, csp)
		}
	}
}

// TestSigningIn: nobody sees anything before, and a browser's other sites cannot.
func TestSigningIn(t *testing.T) {
	s, _ := shown(t, podsOfTheShop()...)
	server := httptest.NewServer(s.Handler())
	defer server.Close()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Jar: jar}
	do := func(method, path, body string, header ...string) (int, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, server.URL+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		if body != "" {
			req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		}
		for i := 0; i+1 < len(header); i += 2 {
			req.Header.Set(header[i], header[i+1])
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(text)
	}
	for _, path := range []string{"/", "/image/" + moved.String(), "/download?format=csv"} {
		if code, text := do("GET", path, ""); code != http.StatusUnauthorized || strings.Contains(text, "cart") {
			t.Errorf("%s without a token: %d %s", path, code, text)
		}
	}
	if code, text := do("POST", "/login", "token=guess"); code != http.StatusUnauthorized || !strings.Contains(text, "does not know this token") {
		t.Errorf("%d %s", code, text)
	}
	if code, _ := do("POST", "/login", "token=later"); code != http.StatusServiceUnavailable {
		t.Errorf("%d", code)
	}
	if code, _ := do("POST", "/login", "token=all", "Origin", "https://evil.example.com", "Sec-Fetch-Site", "cross-site"); code != http.StatusForbidden {
		t.Errorf("another site signed in: %d", code)
	}
	if code, text := do("POST", "/login", "token=shop"); code != http.StatusOK || !strings.Contains(text, "cart") {
		t.Errorf("%d %s", code, text)
	}
	if code, _ := do("GET", "/api/v1/summary", ""); code != http.StatusOK {
		t.Errorf("%d", code)
	}
	if code, _ := do("POST", "/logout", ""); code != http.StatusUnauthorized {
		t.Errorf("signed out, and %d", code)
	}
}

// TestFindingImages: what is asked for, in its order, page by page.
func TestFindingImages(t *testing.T) {
	s, _ := shown(t, podsOfTheShop()...)
	for query, want := range map[string]string{
		"":                            "pay UNKNOWN,pay ERROR,shop UNTRUSTED,shop TRUSTED",
		"namespace=shop":              "shop UNTRUSTED,shop TRUSTED",
		"status=untrusted,unknown":    "pay UNKNOWN,shop UNTRUSTED",
		"status=ERROR&status=TRUSTED": "pay ERROR,shop TRUSTED",
		"sort=status":                 "shop UNTRUSTED,pay UNKNOWN,pay ERROR,shop TRUSTED",
		"sort=-status":                "shop TRUSTED,pay ERROR,pay UNKNOWN,shop UNTRUSTED",
		"sort=status&limit=1&page=2":  "pay UNKNOWN",
		"limit=1000000&page=9":        "",
		"q=Pod/till":                  "pay UNKNOWN",
		"q=" + moved.Encoded()[:12]:   "shop UNTRUSTED",
		"q=none":                      "",
	} {
		var p page
		resp, body := ask(t, s, "all", "/api/v1/results?"+query)
		if err := json.Unmarshal([]byte(body), &p); err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("%s: %d %s", query, resp.StatusCode, body)
		}
		var got []string
		for _, row := range p.Items {
			got = append(got, row.Namespace+" "+string(row.Status))
		}
		if !strings.Contains(query, "sort") { // by namespace and image, which are alike
			slices.Sort(got)
			list := strings.Split(want, ",")
			slices.Sort(list)
			want = strings.Join(list, ",")
		}
		if one := strings.Join(got, ","); one != want {
			t.Errorf("%s: %s, want %s", query, one, want)
		}
	}
	for _, query := range []string{"status=GOOD", "sort=name", "page=0", "page=x", "limit=-1", "q=" + strings.Repeat("x", 300)} {
		if resp, body := ask(t, s, "all", "/api/v1/results?"+query); resp.StatusCode != http.StatusBadRequest || !strings.Contains(body, "error") {
			t.Errorf("%s: %d %s", query, resp.StatusCode, body)
		}
	}
}

// TestDownloads hold all that the page shows, and nothing that a spreadsheet runs.
func TestDownloads(t *testing.T) {
	evil := podRunning("shop", "evil", moved)
	evil.Spec.Containers[0].Image = "=cmd()|x"
	s, _ := shown(t, evil, podRunning("shop", "cart", indexDigest))
	_, body := ask(t, s, "all", "/download?format=csv&sort=status")
	lines, err := csv.NewReader(strings.NewReader(body)).ReadAll()
	if err != nil || len(lines) != 3 || lines[0][0] != "namespace" {
		t.Fatalf("%v, %v", lines, err)
	}
	for _, line := range lines {
		for _, cell := range line {
			if strings.HasPrefix(cell, "=") {
				t.Errorf("%q is calculated", cell)
			}
		}
	}
	var rows []Row
	if _, body := ask(t, s, "all", "/download?format=json"); json.Unmarshal([]byte(body), &rows) != nil || len(rows) != 2 {
		t.Errorf("%s", body)
	}
}

// TestScripts sign what has no signature, and nothing else, whatever it is called.
func TestScripts(t *testing.T) {
	d := func(text string) string { return digest.FromString(text).String() }
	rows := []Row{
		{Image: "shop.example.com/a:1", Subject: d("a"), Digest: d("a"), Status: "UNKNOWN"},
		{Image: "shop.example.com/a:2", Subject: d("a"), Digest: d("a"), Status: "UNKNOWN"},
		{Image: "shop.example.com/b:1", Subject: d("b"), Digest: d("b"), Status: "UNTRUSTED"},
		{Image: "shop.example.com/c:1", Subject: d("c"), Digest: d("c"), Status: "UNKNOWN"},
		{Namespace: "pay", Image: "shop.example.com/c:1", Subject: d("c"), Digest: d("c"), Status: "UNSUPPORTED"},
		{Image: "shop.example.com/e:1", Digest: d("e"), Status: "ERROR"},
		{Image: "shop.example.com/f:1", Subject: d("f"), Digest: d("f"), Status: "UNKNOWN", Trouble: "away"},
		{Image: "shop.example.com/g'; rm -rf /:1", Subject: d("g"), Digest: d("g"), Status: "UNKNOWN"},
		{Image: "shop.example.com/h:1", Subject: d("h"), Digest: d("h"), Status: "TRUSTED"},
		{Image: "shop.example.com/i:1", Status: "UNKNOWN"},
	}
	for _, format := range []string{FormatNotation, FormatCosign} {
		script, err := Script(rows, format)
		if err != nil || strings.Count(script, "\nsign ") != 1 || !strings.HasSuffix(script, "\nsign 'shop.example.com/a@"+d("a")+"'\n") {
			t.Errorf("%s: %v\n%s", format, err, script)
		}
	}
	if _, err := Script(rows, "pgp"); err == nil {
		t.Error("pgp")
	}
	if got := quoted(`a'b$(c)`); got != `'a'\''b$(c)'` {
		t.Error(got)
	}
}

// TestManyContainersAreShownAtOnce: 20,000 containers of 2,000 images.
func TestManyContainersAreShownAtOnce(t *testing.T) {
	var pods []*corev1.Pod
	for i := range 10_000 {
		p := podRunning(fmt.Sprint("ns-", i%200), fmt.Sprint("pod-", i), digest.FromString(fmt.Sprint(i%2000)))
		p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "proxy", Image: image})
		p.Status.ContainerStatuses = append(p.Status.ContainerStatuses, corev1.ContainerStatus{Name: "proxy", ImageID: "shop.example.com/cart@" + indexDigest.String()})
		pods = append(pods, p)
	}
	s, _ := shown(t, pods...)
	if n := s.watch.Summary(nil).Containers[Status(verifier.StatusUnknown)]; n != 10_000 {
		t.Fatalf("%d are unknown", n)
	}
	for path, budget := range map[string]time.Duration{"/": time.Second, "/?q=ns-7": 200 * time.Millisecond, "/?sort=-since&status=UNKNOWN&page=3": 200 * time.Millisecond} {
		began := time.Now()
		resp, body := ask(t, s, "all", path)
		took := time.Since(began)
		t.Logf("%s: %v, %d bytes", path, took, len(body))
		if resp.StatusCode != http.StatusOK || took > 3*budget*raceFactor {
			t.Errorf("%s: %d in %v", path, resp.StatusCode, took)
		}
	}
}

// TestThePastIsThereWhereNothingRunsAnyMore, for those who may see the namespace.
func TestThePastIsThereWhereNothingRunsAnyMore(t *testing.T) {
	server, history := shown(t)
	for _, namespace := range []string{"shop", "pay"} {
		history.Add(Transition{Time: time.Now(), Namespace: namespace, Image: image, Digest: moved.String(), To: "UNTRUSTED", Message: "in " + namespace})
	}
	for token, want := range map[string]int{"shop": 1, "all": 2} {
		req := httptest.NewRequest(http.MethodGet, "/api/v1/images/"+moved.String(), nil)
		req.Header.Set("Authorization", "Bearer "+token)
		rec := httptest.NewRecorder()
		server.Handler().ServeHTTP(rec, req)
		var d detail
		if err := json.Unmarshal(rec.Body.Bytes(), &d); err != nil || rec.Code != http.StatusOK || len(d.History) != want {
			t.Errorf("%s: %d %s", token, rec.Code, rec.Body)
		}
	}
}
