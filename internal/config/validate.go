package config

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"unicode"

	api "github.com/countersign-dev/countersign/api/v1beta1"
)

// validator checks what the types cannot say. It knows each value's path, and
// so its line.
type validator struct {
	*decoder
	doc *Document
}

func (doc *Document) validate(d *decoder) {
	doc.lines = d.lines
	v := validator{d, doc}
	v.metadata()
	if doc.Kind == api.KindExemption {
		v.exemption()
		return
	}
	v.images(doc.Spec.Images)
	v.literalHosts()
	v.namespaces(doc.Spec.Namespaces)
	v.privateHosts(doc.Spec.PrivateHosts)
	v.contact()
	v.registries()
	v.keyVaults()
	v.require()
}

// at reports a problem of the value at the path.
func (v validator) at(path, message, remedy string) {
	v.problem(v.doc.line(path), path, message, remedy)
}

// where says where another value of the document is.
func (v validator) where(path string) string {
	if v.doc.inCluster {
		return "at " + path
	}
	return fmt.Sprintf("in line %d", v.doc.line(path))
}

// limit reports a list that is too long.
func (v validator) limit(path string, n, most int) {
	if n > most {
		v.at(path, fmt.Sprintf("%d parts are more than the %d that are allowed", n, most), "Split the policy, or write patterns")
	}
}

func (v validator) metadata() {
	m := v.doc.Metadata
	if m.Name != "" && !isSubdomain(m.Name) {
		v.at("metadata.name", quote(m.Name)+" is not a name", "Write lower case letters, digits, - and .")
	}
	_, named := v.lines["metadata.name"]
	if named && m.Name == "" {
		v.at("metadata.name", "the name is empty", "Write lower case letters, digits, - and .")
	}
	switch {
	case v.doc.Kind != api.KindTrustPolicy && m.Namespace != "":
		v.at("metadata.namespace", v.doc.Kind+" is a kind without namespace", "Delete it, or write spec.namespaces to say where it applies")
	case v.doc.Kind == api.KindTrustPolicy && m.Namespace == "":
		v.at("metadata.namespace", "is missing", "A TrustPolicy applies in its own namespace; write which")
	case m.Namespace != "" && !isLabel(m.Namespace):
		v.at("metadata.namespace", quote(m.Namespace)+" is not a namespace", "Write lower case letters, digits and -")
	}
}

func (v validator) images(list []string) {
	v.limit("spec.images", len(list), api.MaxImages)
	first := map[string]int{}
	for i, text := range list {
		path := element("spec.images", i)
		p, e := parsePattern(text)
		if e != nil {
			if v.lines[path] != 0 && !v.reported(path) {
				v.at(path, e.what, e.remedy)
			}
			continue
		}
		if at, twice := first[p.text]; twice {
			v.at(path, quote(p.text)+" is there twice", "Delete this one; the first is "+v.where(element("spec.images", at)))
			continue
		}
		first[p.text] = i
	}
}

// literalHosts wants them where an absent registry admits images.
func (v validator) literalHosts() {
	if v.doc.Spec.WhenUndecided != api.WhenUndecidedAllow {
		return
	}
	for i, text := range v.doc.Spec.Images {
		path := element("spec.images", i)
		if p, e := parsePattern(text); e == nil && p.host.literal == "" && !v.reported(path) {
			v.at(path, "whenUndecided: allow needs a literal host, and "+quote(p.text)+" has a wildcard in it", "Write each host, or whenUndecided: deny")
		}
	}
}

// reported reports whether there is a problem about the path already.
func (v validator) reported(path string) bool { return v.faulty[path] }

func (v validator) namespaces(list []string) {
	v.limit("spec.namespaces", len(list), api.MaxNamespaces)
	seen := map[string]bool{}
	for i, text := range list {
		path := element("spec.namespaces", i)
		switch {
		case v.reported(path):
		case seen[text]:
			v.at(path, quote(text)+" is there twice", "Delete one of them")
		case strings.Contains(text, "**"):
			v.at(path, quote(text)+" has **, and a namespace is one word", "Write *")
		case !isLabel(strings.ReplaceAll(text, "*", "a")):
			v.at(path, quote(text)+" is not a namespace or a pattern of them", "Write lower case letters, digits and -, and * for any characters")
		}
		seen[text] = true
	}
}

// privateHosts wants exact hosts.
func (v validator) privateHosts(list []string) {
	v.limit("spec.privateHosts", len(list), api.MaxPrivateHosts)
	first := map[string]int{}
	for i, text := range list {
		path := element("spec.privateHosts", i)
		if v.reported(path) {
			continue
		}
		host, ok := v.exactHost(path, text, "the host of a server", "and each host is listed by itself")
		if !ok {
			continue
		}
		if at, twice := first[host]; twice {
			v.at(path, quote(host)+" is there twice", "Delete one of them; the first is "+v.where(element("spec.privateHosts", at)))
			continue
		}
		first[host] = i
	}
}

// contact checks what is printed in denials.
func (v validator) contact() {
	spec := v.doc.Spec
	v.text("spec.owner", spec.Owner, api.MaxOwner)
	v.text("spec.helpURL", spec.HelpURL, api.MaxHelpURL)
	if spec.HelpURL == "" {
		return
	}
	if u, err := url.Parse(spec.HelpURL); err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		v.at("spec.helpURL", quote(spec.HelpURL)+" is not a link", "Write https://…")
	}
}

// text checks a text that is printed in answers.
func (v validator) text(path, text string, most int) {
	if _, there := v.lines[path]; !there || v.reported(path) {
		return
	}
	switch {
	case strings.TrimSpace(text) == "":
		v.at(path, "the text is empty", "Write something, or delete the field")
	case len(text) > most:
		v.at(path, fmt.Sprintf("%d bytes are more than the %d that fit into a denial", len(text), most), "Shorten it")
	case strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }):
		v.at(path, "the text has a line break or another character that cannot be printed", "Write it in one line")
	}
}

func (v validator) registries() {
	list := v.doc.Spec.Registries
	v.limit("spec.registries", len(list), api.MaxRegistries)
	first := map[string]int{}
	for i, r := range list {
		path := element("spec.registries", i)
		v.registryHost(path, r.Host, i, first)
		if r.PlainHTTP && r.CA != nil {
			v.at(path+".ca", "there is no TLS with plainHTTP, and so nothing to use a CA for", "Delete one of them")
		}
		v.dataSource(path+".ca", r.CA)
		if c := r.ClientCertificate; c != nil {
			if r.PlainHTTP {
				v.at(path+".clientCertificate", "there is no TLS with plainHTTP, and so nobody to show a certificate to", "Delete one of them")
			}
			v.dataSource(path+".clientCertificate.certificate", c.Certificate)
			v.dataSource(path+".clientCertificate.key", c.Key)
		}
		v.mirror(path, r)
		v.limit(path+".tokenHosts", len(r.TokenHosts), api.MaxTokenHosts)
		for j, host := range r.TokenHosts {
			v.host(element(path+".tokenHosts", j), host)
		}
		v.limit(path+".redirectHosts", len(r.RedirectHosts), api.MaxTokenHosts)
		for j, host := range r.RedirectHosts {
			v.host(element(path+".redirectHosts", j), host)
		}
		if r.Auth == nil {
			continue
		}
		if c := r.Auth.DockerConfig; c != nil && c.Path == "" {
			v.empty(path + ".auth.dockerConfig.path")
		}
		v.objectReference(path+".auth.pullSecret", r.Auth.PullSecret)
		v.azureRegistry(path, r)
		v.cloudRegistry(path, r)
		if s := r.Auth.Static; s != nil {
			at := path + ".auth.static"
			v.dataSource(at+".password", s.Password)
			v.dataSource(at+".token", s.Token)
			switch {
			case s.Password != nil && s.Username == "":
				v.at(at+".username", "is missing", "A password goes with a username; a token alone is written as token")
			case s.Token != nil && s.Username != "":
				v.at(at+".username", "a token goes without a username", "Delete it, or write password")
			}
		}
	}
}

func (v validator) registryHost(path, text string, i int, first map[string]int) {
	path += ".host"
	if _, there := v.lines[path]; !there || v.reported(path) {
		return
	}
	host, ok := v.host(path, text)
	if !ok {
		return
	}
	if at, twice := first[host]; twice {
		v.at(path, quote(host)+" is there twice", "Delete one of them; the first is "+v.where(element("spec.registries", at)+".host"))
		return
	}
	first[host] = i
	if !v.covers(host) && !v.keepsSignatures(host) && !v.mirrors(host) {
		v.at(path, "no pattern of spec.images names an image on "+quote(host), "Correct the host, or delete the entry")
	}
}

// mirror checks what is asked in the place of a registry.
func (v validator) mirror(path string, r api.Registry) {
	if r.Mirror == "" {
		return
	}
	host, below, _ := strings.Cut(r.Mirror, "/")
	if _, e := parsePattern(strings.TrimSuffix(host+"/"+below, "/") + "/**"); e != nil || strings.Contains(r.Mirror, "*") || host == "" {
		v.at(path+".mirror", quote(r.Mirror)+" is not the place of a mirror", "Write its host and what goes before repositories there, as mirror.example.com/hub")
	}
	if r.Auth != nil || r.CA != nil || r.ClientCertificate != nil || r.PlainHTTP || len(r.TokenHosts)+len(r.RedirectHosts) > 0 {
		v.at(path+".mirror", "nobody asks "+quote(r.Host)+" itself, and how its mirror is asked is another entry", "Write these options in an entry for "+host)
	}
}

// host reads one host, to which a credential may go.
func (v validator) host(path, text string) (literal string, ok bool) {
	return v.exactHost(path, text, "the host of a registry", "and a credential goes to one host")
}

// exactHost reads one host. What it should be, and why a wildcard is wrong, are said of
// another text.
func (v validator) exactHost(path, text, what, why string) (literal string, ok bool) {
	p, e := parsePattern(text + "/**")
	switch {
	case strings.Contains(text, "*"):
		v.at(path, quote(text)+" has a wildcard, "+why, "Write the host in full")
	case text == "" || strings.Contains(text, "/") || e != nil:
		remedy := "Write the host as image references do, with its port unless that is 443"
		if e != nil && strings.HasPrefix(e.remedy, "Write docker.io/") {
			remedy = "Write docker.io"
		}
		v.at(path, quote(text)+" is not "+what, remedy)
	default:
		return p.host.literal, true
	}
	return "", false
}

// covers reports whether an image on the host may be one of the policy's. A
// policy whose images cannot be read may cover anything.
func (v validator) covers(host string) bool {
	n := newHost(host)
	for _, text := range v.doc.Spec.Images {
		if p, e := parsePattern(text); e != nil || p.host.matches(&n) {
			return true
		}
	}
	return len(v.doc.Spec.Images) == 0
}

// mirrors reports whether the host is a mirror of another entry.
func (v validator) mirrors(host string) bool {
	return slices.ContainsFunc(v.doc.Spec.Registries, func(r api.Registry) bool {
		of, _, _ := strings.Cut(r.Mirror, "/")
		return of != "" && canonicalHost(of) == host
	})
}

// keepsSignatures reports whether a check looks for signatures on the host.
func (v validator) keepsSignatures(host string) bool {
	for _, check := range ruleOf(v.doc.Spec.Require).checks() {
		if _, chosen := check.scheme(); chosen != nil && chosen.host() == host {
			return true
		}
	}
	return false
}

func (v validator) dataSource(path string, s *api.DataSource) {
	if s == nil {
		return
	}
	if s.Inline == "" {
		v.empty(path + ".inline")
	}
	if s.File == "" {
		v.empty(path + ".file")
	}
	v.keyReference(path+".secret", s.Secret)
	v.keyReference(path+".configMap", s.ConfigMap)
}

func (v validator) keyReference(path string, ref *api.KeyReference) {
	if ref == nil {
		return
	}
	v.objectReference(path, &ref.ObjectReference)
	if ref.Key == "" {
		v.empty(path + ".key")
	}
}

func (v validator) objectReference(path string, ref *api.ObjectReference) {
	if ref == nil {
		return
	}
	if ref.Name == "" {
		v.empty(path + ".name")
	} else if !isSubdomain(ref.Name) {
		v.at(path+".name", quote(ref.Name)+" is not the name of an object", "Write lower case letters, digits, - and .")
	}
	if ref.Namespace != "" && !isLabel(ref.Namespace) {
		v.at(path+".namespace", quote(ref.Namespace)+" is not a namespace", "Write lower case letters, digits and -")
	}
}

// empty reports a text that is there and empty.
func (v validator) empty(path string) {
	if _, there := v.lines[path]; there && !v.reported(path) {
		v.at(path, "the text is empty", "Write something, or delete the field")
	}
}
