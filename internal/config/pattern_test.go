package config

import (
	"regexp"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/countersign-dev/countersign/internal/verifier"
)

// Parts that make matches, near misses and ties likely.
var (
	someHosts    = []string{"a.example", "b.example", "a.b.example", "a.example:5000", "x.a.example", "localhost", "docker.io"}
	someParts    = []string{"a", "b", "ab", "a-b", "library"}
	someLabels   = []string{"a", "b", "example", "*", "**", "a*", "*b"}
	someSegments = []string{"a", "b", "ab", "*", "**", "a*", "*b", "library"}
)

func drawImage(t *rapid.T) verifier.Reference {
	return verifier.Reference{
		Registry:   rapid.SampledFrom(someHosts).Draw(t, "host"),
		Repository: strings.Join(rapid.SliceOfN(rapid.SampledFrom(someParts), 1, 4).Draw(t, "path"), "/"),
	}
}

// drawPattern draws until there is one that is allowed.
func drawPattern(t *rapid.T) pattern {
	host := rapid.OneOf(rapid.SampledFrom(someHosts), rapid.Custom(func(t *rapid.T) string {
		return strings.Join(rapid.SliceOfN(rapid.SampledFrom(someLabels), 1, 3).Draw(t, "labels"), ".") + rapid.SampledFrom([]string{"", ":5000"}).Draw(t, "port")
	}))
	return rapid.Custom(func(t *rapid.T) pattern {
		p, e := parsePattern(host.Draw(t, "host") + "/" + strings.Join(rapid.SliceOfN(rapid.SampledFrom(someSegments), 1, 4).Draw(t, "segments"), "/"))
		if e != nil {
			t.Skip(e.what)
		}
		return p
	}).Draw(t, "pattern")
}

// drawMatch draws a pattern that matches the image, by saying less in places.
func drawMatch(t *rapid.T, ref verifier.Reference) pattern {
	n := newName(ref)
	less := func(parts []string, word string) []string {
		var out []string
		for i := 0; i < len(parts); i++ {
			switch rapid.IntRange(0, 6).Draw(t, word) {
			case 0:
				out = append(out, "*")
			case 1:
				out = append(out, parts[i][:1]+"*")
			case 2:
				out = append(out, "*"+parts[i][1:])
			case 3:
				out = append(out, "**")
				i += rapid.IntRange(0, len(parts)-1-i).Draw(t, "more")
			default:
				out = append(out, parts[i])
			}
		}
		return out
	}
	host := ref.Registry
	if rapid.IntRange(0, 3).Draw(t, "host") == 0 {
		host = strings.Join(less(n.labels, "label"), ".")
		if n.port != "" {
			host += ":" + n.port
		}
	}
	p, e := parsePattern(host + "/" + strings.Join(less(n.path, "segment"), "/"))
	if e != nil {
		t.Skip(e.what)
	}
	if !p.matches(&n) {
		t.Fatalf("%s does not match %s", p.text, ref.Name())
	}
	return p
}

// asRegexp says the same as the pattern in another language.
func asRegexp(p pattern) *regexp.Regexp {
	translate := func(q sequence, separator, inside string) string {
		var list []string
		for _, s := range q.segments {
			if s.text == "**" {
				list = append(list, inside+"+("+separator+inside+"+)*")
			} else {
				list = append(list, strings.ReplaceAll(regexp.QuoteMeta(s.text), `\*`, inside+"*"))
			}
		}
		return strings.Join(list, separator)
	}
	host := regexp.QuoteMeta(p.host.literal)
	if p.host.literal == "" {
		host = translate(p.host.labels, `\.`, `[^./:]`)
		switch {
		case p.host.anyPort:
			host += `(:\d+)?`
		case p.host.port != "":
			host += ":" + p.host.port
		}
	}
	return regexp.MustCompile("^" + host + "/" + translate(p.path, "/", "[^/]") + "$")
}

func TestPatternsMatchAsTheyAreDescribed(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, ref := drawPattern(t), drawImage(t)
		n := newName(ref)
		// A segment of an image is never empty, so "a*" may match "a" and "*" all.
		if got, want := p.matches(&n), asRegexp(p).MatchString(ref.Name()); got != want {
			t.Fatalf("%s on %s: %v, want %v", p.text, ref.Name(), got, want)
		}
	})
}

func TestPatternIsItsOwnSpelling(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := drawPattern(t)
		again, e := parsePattern(p.text)
		if e != nil || again.text != p.text || again.rank != p.rank {
			t.Fatalf("%s reads as %s, %v", p.text, again.text, e)
		}
	})
}

// FuzzL19_LiteralHostMatchesNoOther: a pattern with a literal host matches
// images of that host and of no other, however the two are written.
func FuzzL19_LiteralHostMatchesNoOther(f *testing.F) {
	for _, image := range []string{
		"registry.k8s.io/x", "attacker.example/registry.k8s.io/x", "registry.k8s.io.attacker.example/x", "user@registry.k8s.io/x",
		"registry.k8s.io:5000/x", "registry.k8s.io:443/x", "REGISTRY.k8s.io/x", "xregistry.k8s.io/x", "registry-k8s.io/x", "registry.k8s.io@x/x",
		"registry.k8s.io./x", "registry.k8s.io:80:443/x", "k8s.io/registry/x", "[::1]/registry.k8s.io/x",
	} {
		for _, pattern := range []string{"registry.k8s.io/**", "registry.k8s.io/*", "registry.k8s.io/x", "registry.k8s.io:5000/**", "registry.*.io/**", "**.k8s.io/**", "**/x"} {
			f.Add(pattern, image)
		}
	}
	f.Fuzz(func(t *testing.T, text, image string) {
		p, e := parsePattern(text)
		ref, err := verifier.ParseReference(image)
		if e != nil || err != nil {
			return
		}
		n := newName(ref)
		matches := p.matches(&n)
		host, _, _ := strings.Cut(text, "/")
		if literal := !strings.Contains(host, "*"); literal != (p.host.literal != "") {
			t.Fatalf("%s: literal host %q", text, p.host.literal)
		} else if literal && matches && ref.Registry != strings.TrimSuffix(strings.ToLower(host), ":443") {
			t.Errorf("%s matches %s", text, ref.Name())
		}
		if matches != asRegexp(p).MatchString(ref.Name()) && len(ref.Name()) > 0 && !strings.HasPrefix(ref.Registry, "[") {
			t.Errorf("%s on %s: %v", text, ref.Name(), matches)
		}
		// What is found by index is what is found by looking at all.
		x := newIndex([]*policy{{patterns: []pattern{p}}})
		if (len(x.winners(&n, everywhere)) > 0) != matches {
			t.Errorf("%s on %s: the index differs", text, ref.Name())
		}
	})
}

// FuzzClaim: whatever a broken pattern is, what it claims is a pattern, and a
// sound one claims itself.
func FuzzClaim(f *testing.F) {
	for _, text := range []string{"nginx", "https://a.example/x", "a.example/x:1", "a.example/x**/y", "a.example/X", "", "/", "***", "a.example/" + strings.Repeat("x/", 300)} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, ok := claim(text)
		if sound, e := parsePattern(text); e == nil && (!ok || p.text != sound.text) {
			t.Errorf("%q claims %q", text, p.text)
		}
		if _, e := parsePattern(p.text); ok && e != nil {
			t.Errorf("%q claims %q, which is none: %s", text, p.text, e.what)
		}
	})
}

func TestClaimsOfBrokenPatterns(t *testing.T) {
	for text, want := range map[string]string{
		"nginx":                               "docker.io/library/nginx",
		"docker.io/nginx":                     "docker.io/library/nginx",
		"team/app":                            "docker.io/team/app",
		"https://shop.example.com/cart":       "shop.example.com/cart",
		"shop.example.com/cart:1.4":           "shop.example.com/cart",
		"shop.example.com/cart@sha256:00":     "shop.example.com/cart",
		"shop.example.com/cart**":             "shop.example.com/**",
		"shop.example.com/team/a**/b":         "shop.example.com/team/**",
		"shop.example.com/**/**":              "shop.example.com/**",
		"shop.example.com":                    "shop.example.com/**",
		"SHOP.example.com/Cart":               "shop.example.com/cart",
		"*.example.com/a//b":                  "*.example.com/a/**",
		"index.docker.io/*":                   "docker.io/*/**",
		"**":                                  "**/**",
		"shop.example.com:5000/team/app:v1**": "shop.example.com:5000/team/app",
	} {
		if p, ok := claim(text); !ok || p.text != want {
			t.Errorf("%q claims %q, want %q", text, p.text, want)
		}
	}
	for _, text := range []string{"", "???", "*/x", "a b/c", "/x"} {
		if p, ok := claim(text); ok {
			t.Errorf("%q claims %q", text, p.text)
		}
	}
}
