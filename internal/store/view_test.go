package store

import (
	"context"
	"crypto/tls"
	"fmt"
	"reflect"
	"slices"
	"testing"

	"github.com/countersign-dev/countersign/internal/store/auth"
)

// credentialOf is a credential that is told apart by its name.
type credentialOf string

func (c credentialOf) Credential(context.Context, string) (auth.Credential, error) {
	return auth.Credential{}, nil
}

func (c credentialOf) ID() string { return string(c) }

// full are options with something in each field.
func full() ViewOptions {
	registry := func(host string) Registry {
		return Registry{
			Host: host, PlainHTTP: true, CAs: []byte("ca"), ClientCertificate: &tls.Certificate{Certificate: [][]byte{[]byte("ours")}},
			Credential: credentialOf("robot"), Mirror: "mirror.example.com", TokenHosts: []string{"tokens.example.com"}, RedirectHosts: []string{"blobs.example.com"},
		}
	}
	return ViewOptions{
		Registries: []Registry{registry("a.example.com"), registry("b.example.com")}, Others: registry(""),
		Reach: Reach{Administrator: true, Hosts: []string{"x.corp", "y.corp"}, Registries: []string{"r.corp", "s.corp"}},
		Named: []string{"n.corp", "o.corp"}, OthersPrivate: true,
	}
}

// TestL53_ViewIDsTellAllOptionsApart: each field of the options, and each that is added
// to them, changes the id, which is in the key of all that a view remembers.
func TestL53_ViewIDsTellAllOptionsApart(t *testing.T) {
	s := New(Options{})
	seen := map[string]string{s.viewID(full()): "the options as they are"}
	tried := 0
	try := func(path string, options ViewOptions) {
		tried++
		id := s.viewID(options)
		if twin, known := seen[id]; known {
			t.Errorf("%s: the same id as %s", path, twin)
		}
		seen[id] = path
	}
	var each func(path string, at func(*ViewOptions) reflect.Value)
	each = func(path string, at func(*ViewOptions) reflect.Value) {
		options := full()
		switch v := at(&options); v.Interface().(type) {
		case bool:
			v.SetBool(!v.Bool())
			try(path, options)
		case string:
			v.SetString(v.String() + "x")
			try(path, options)
		case []byte:
			v.SetBytes([]byte("other"))
			try(path, options)
		case []string:
			v.Set(v.Slice(0, v.Len()-1))
			try(path+", one less", options)
			options = full()
			v = at(&options)
			v.Set(reflect.Append(v, reflect.ValueOf("z.corp")))
			try(path+", one more", options)
			options = full()
			at(&options).SetZero()
			try(path+", none", options)
		case *tls.Certificate:
			v.Set(reflect.ValueOf(&tls.Certificate{Certificate: [][]byte{[]byte("other")}}))
			try(path+", another", options)
			v.SetZero()
			try(path+", none", options)
		case credentialOf:
			v.Set(reflect.ValueOf(credentialOf("other")))
			try(path+", another", options)
			v.SetZero()
			try(path+", none", options)
		case []Registry:
			v.Set(v.Slice(0, 1))
			try(path+", one less", options)
			each(path+"[1]", func(o *ViewOptions) reflect.Value { return at(o).Index(1) })
		case Registry, Reach:
			for i := range v.NumField() {
				each(path+"."+v.Type().Field(i).Name, func(o *ViewOptions) reflect.Value { return at(o).Field(i) })
			}
		default:
			t.Errorf("%s: a %T, which this test cannot change", path, v.Interface())
		}
	}
	for i := range reflect.TypeFor[ViewOptions]().NumField() {
		each(reflect.TypeFor[ViewOptions]().Field(i).Name, func(o *ViewOptions) reflect.Value { return reflect.ValueOf(o).Elem().Field(i) })
	}
	if tried < 30 {
		t.Errorf("only %d changes", tried)
	}
}

// TestTheSameOptionsHaveOneID: the order of hosts means nothing.
func TestTheSameOptionsHaveOneID(t *testing.T) {
	s := New(Options{})
	turned := full()
	for _, list := range [][]string{turned.Named, turned.Reach.Hosts, turned.Reach.Registries} {
		slices.Reverse(list)
	}
	slices.Reverse(turned.Registries)
	turned.Named = append(turned.Named, turned.Named[0])
	if a, b := s.viewID(full()), s.viewID(turned); a != b {
		t.Error(fmt.Sprint(a, " and ", b))
	}
}

// TestL30_TokenHostsAreExact: the credential goes to the host that is written, and to
// none that begins or ends like it.
func TestL30_TokenHostsAreExact(t *testing.T) {
	v, err := New(Options{}).View(ViewOptions{Registries: []Registry{{Host: "registry.example.com", TokenHosts: []string{"auth.example.com", "auth.example.com:8443"}}}})
	if err != nil {
		t.Fatal(err)
	}
	for realm, shown := range map[string]bool{
		"https://registry.example.com/token": true, "https://auth.example.com/token": true, "https://AUTH.example.com/token": true, "https://auth.example.com:8443/token": true,
		"https://evilauth.example.com/token": false, "https://evil.auth.example.com/token": false, "https://auth.example.com.evil.test/token": false,
		"https://auth.example.com:9443/token": false, "https://auth.example.com@evil.test/token": false, "https://evil.test/auth.example.com": false,
		"https://example.com/token": false, "https://com/token": false, "https://uth.example.com/token": false, "http://auth.example.com/token": false,
	} {
		_, f := v.client("registry.example.com").realm(challenge{bearer: true, realm: realm}, robotForTests)
		if (f == nil) != shown {
			t.Errorf("%s: %v", realm, f)
		}
	}
}
