package provider_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/countersign-dev/countersign/internal/provider"
	"github.com/countersign-dev/countersign/internal/verifier"
)

func TestKeysAreRead(t *testing.T) {
	cart := verifier.Reference{Registry: "shop.example.com", Repository: "cart", Tag: "1.4"}
	six := verifier.Reference{Registry: "[2001:db8::1]:5000", Repository: "cart", Tag: "1.4"}
	for key, want := range map[string]verifier.Request{
		"shop.example.com/cart:1.4":                           {Image: cart},
		"nginx":                                               {Image: verifier.Reference{Registry: "docker.io", Repository: "library/nginx", Tag: "latest"}},
		"[shop]shop.example.com/cart:1.4":                     {Namespace: "shop", Image: cart},
		"[shop;sa=till]shop.example.com/cart:1.4":             {Namespace: "shop", ServiceAccount: "till", Image: cart},
		"[shop;secrets=a,b.c]shop.example.com/cart:1.4":       {Namespace: "shop", PullSecrets: []string{"a", "b.c"}, Image: cart},
		"[shop;sa=till;secrets=a]shop.example.com/cart:1.4":   {Namespace: "shop", ServiceAccount: "till", PullSecrets: []string{"a"}, Image: cart},
		"[2001:db8::1]:5000/cart:1.4":                         {Image: six},
		"[shop][2001:db8::1]:5000/cart:1.4":                   {Namespace: "shop", Image: six},
		"[shop;sa=till;secrets=a][2001:db8::1]:5000/cart:1.4": {Namespace: "shop", ServiceAccount: "till", PullSecrets: []string{"a"}, Image: six},
	} {
		got, err := provider.ParseKey(key)
		if err != nil {
			t.Errorf("%s: %v", key, err)
		} else if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", key, diff)
		}
	}
}

func TestBadKeysAreRefused(t *testing.T) {
	for name, key := range map[string]string{
		"empty":                      "",
		"no image":                   "[shop]",
		"empty namespace":            "[]nginx",
		"bracket not closed":         "[shop nginx",
		"upper-case namespace":       "[Shop]nginx",
		"namespace with a dot":       "[shop.kube-system]nginx",
		"namespace with a slash":     "[shop/kube-system]nginx",
		"namespace with a space":     "[ shop]nginx",
		"namespace too long":         "[" + strings.Repeat("a", 64) + "]nginx",
		"namespace ends in hyphen":   "[shop-]nginx",
		"second namespace":           "[shop][kube-system]nginx",
		"unknown field":              "[shop;user=me]nginx",
		"field twice":                "[shop;sa=a;sa=b]nginx",
		"secrets twice":              "[shop;secrets=a;secrets=b]nginx",
		"empty field":                "[shop;]nginx",
		"empty ServiceAccount":       "[shop;sa=]nginx",
		"empty secret":               "[shop;secrets=a,]nginx",
		"secret of another place":    "[shop;secrets=kube-system/a]nginx",
		"newline after the image":    "nginx\n",
		"newline in the namespace":   "[sh\nop]nginx",
		"closing bracket twice":      "[shop]]nginx",
		"space":                      "shop.example.com/cart 1.4",
		"not a reference":            "https://shop.example.com/cart",
		"digest of the wrong length": "nginx@sha256:abc",
		"too long":                   strings.Repeat("a", 5000),
		"too many secrets":           "[shop;secrets=" + strings.Repeat("secret,", 600) + "last]nginx",
	} {
		t.Run(name, func(t *testing.T) {
			got, err := provider.ParseKey(key)
			var because *verifier.Error
			if !errors.As(err, &because) || because.Reason != verifier.ReasonReferenceInvalid || because.Message == "" {
				t.Errorf("%q: %v", key, err)
			}
			if diff := cmp.Diff(verifier.Request{}, got); diff != "" {
				t.Errorf("a refused key gives a request: %s", diff)
			}
		})
	}
}

func FuzzKey(f *testing.F) {
	for _, seed := range []string{
		"nginx", "[shop]nginx:1@sha256:" + strings.Repeat("a", 64), "[shop;sa=till;secrets=a,b]shop.example.com:443/cart",
		"[::1]:5000/a", "[a][::1]/b", "[]a", "[a;secrets=]b", "[a:b;sa=c]d", "[a", "]", "[a]b[c]", "\x00", "[a]\n",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, key string) {
		request, err := provider.ParseKey(key)
		if err != nil {
			if e := verifier.AsError(err); e.Reason != verifier.ReasonReferenceInvalid {
				t.Errorf("%q: reason %s", key, e.Reason)
			}
			return
		}
		if request.Namespace != "" && !strings.HasPrefix(key, "["+request.Namespace+"]") && !strings.HasPrefix(key, "["+request.Namespace+";") {
			t.Errorf("%q: namespace %q is not the key's own", key, request.Namespace)
		}
		if request.Namespace == "" && (request.ServiceAccount != "" || request.PullSecrets != nil) {
			t.Errorf("%q: credentials of no namespace", key)
		}
		if strings.ContainsAny(request.Namespace, "[];:/. \n") {
			t.Errorf("%q: namespace %q", key, request.Namespace)
		}
		// What follows the brackets means the same without them.
		if scope, image, found := strings.Cut(key, "]"); found && request.Namespace != "" && !strings.Contains(scope, ":") {
			if plain, err := verifier.ParseReference(image); err != nil || plain != request.Image {
				t.Errorf("%q: image %v, alone %v %v", key, request.Image, plain, err)
			}
		}
	})
}
