package config

import (
	"bytes"
	"crypto"
	"encoding/pem"
	"strings"

	api "github.com/countersign-dev/countersign/api/v1beta1"
	"github.com/countersign-dev/countersign/internal/trust"
	"github.com/countersign-dev/countersign/internal/verifier"
	"github.com/countersign-dev/countersign/internal/verifier/sigstore"
)

// cosignScheme is the scheme of the field cosign.
type cosignScheme struct{ *api.Cosign }

func (s cosignScheme) validate(v validator, path string) {
	v.limit(path+".keys", len(s.Keys), api.MaxKeys)
	first := map[string]int{}
	for i, key := range s.Keys {
		at := element(path+".keys", i)
		v.dataSource(at, &key.DataSource)
		if k := key.AzureKeyVault; k != nil {
			v.vaultObjects(at+".azureKeyVault", "keys", k.VaultURI, trust.Key, k.Keys)
		}
		switch before, twice := first[key.Name]; {
		case key.Name == "":
			v.empty(at + ".name")
			continue
		case !isWord(key.Name):
			v.at(at+".name", quote(key.Name)+" is not the name of a key", "Write letters, digits and . _ -")
		case twice:
			v.at(at+".name", quote(key.Name)+" is the name of two keys",
				"Rename one; the first is "+v.where(element(path+".keys", before)+".name"))
		}
		first[key.Name] = i
	}
	v.limit(path+".logKeys", len(s.LogKeys), api.MaxLogKeys)
	for i := range s.LogKeys {
		v.dataSource(element(path+".logKeys", i), &s.LogKeys[i])
	}
	v.dataSource(path+".trustedRoot", s.TrustedRoot)
	s.validateLogs(v, path)
	s.validateRepository(v, path)
}

// validateLogs holds what is wanted of logs to which logs are trusted.
func (s cosignScheme) validateLogs(v validator, path string) {
	none := v.absent(path+".logKeys") && v.absent(path+".trustedRoot")
	switch s.TransparencyLog {
	case api.TransparencyLogIgnored:
		for _, beside := range []string{path + ".logKeys", path + ".trustedRoot"} {
			if _, there := v.lines[beside]; there {
				v.at(beside, "nobody looks at logs with transparencyLog: ignored", "Delete it, or write transparencyLog: required or optional")
			}
		}
	case api.TransparencyLogRequired, api.TransparencyLogOptional:
		if none {
			v.at(path+".transparencyLog", "no log is trusted whose proof could be verified", "Add logKeys or trustedRoot, or write transparencyLog: ignored")
		}
	}
}

// repository is where the signatures are; the zero Reference when they are with
// the image, or when what is written is none.
func (s cosignScheme) repository() verifier.Reference {
	ref, err := verifier.ParseReference(s.SignatureRepository)
	if err != nil || ref.Name() != s.SignatureRepository {
		return verifier.Reference{}
	}
	return verifier.Reference{Registry: ref.Registry, Repository: ref.Repository}
}

func (s cosignScheme) validateRepository(v validator, path string) {
	path += ".signatureRepository"
	if _, there := v.lines[path]; there && !v.reported(path) && s.repository() == (verifier.Reference{}) {
		v.at(path, quote(s.SignatureRepository)+" is not a repository", "Write it as registry/repository, in lower case and without tag or digest")
	}
}

func (s cosignScheme) host() string { return s.repository().Registry }

func (s cosignScheme) gather(g *gatherer, path string) {
	for i, key := range s.Keys {
		g.data(element(path+".keys", i), &key.DataSource)
		if k := key.AzureKeyVault; k != nil {
			g.vault(element(path+".keys", i)+".azureKeyVault", k.VaultURI, "keys", trust.Key, k.Keys)
		}
	}
	for i := range s.LogKeys {
		g.data(element(path+".logKeys", i), &s.LogKeys[i])
	}
	g.data(path+".trustedRoot", s.TrustedRoot)
}

func (s cosignScheme) compile(c *compiler, path string) schemeVerifier {
	before := len(c.problems)
	options := sigstore.Options{TransparencyLog: sigstore.TransparencyLog(s.TransparencyLog), Repository: s.repository()}
	for i, source := range s.Keys {
		if source.AzureKeyVault != nil {
			options.Keys = append(options.Keys, c.vaultKeys(element(path+".keys", i)+".azureKeyVault", source.Name)...)
			continue
		}
		if key := c.publicKey(element(path+".keys", i), source.DataSource); key != nil {
			options.Keys = append(options.Keys, sigstore.PublicKey{Name: source.Name, Key: key, Object: c.objectWith(key)})
		}
	}
	for i, source := range s.LogKeys {
		options.LogKeys = append(options.LogKeys, c.publicKey(element(path+".logKeys", i), source))
	}
	if s.TrustedRoot != nil {
		options.TrustedRoot, _ = c.data(path+".trustedRoot", *s.TrustedRoot)
	}
	if len(c.problems) > before {
		return nil
	}
	v, err := sigstore.New(options)
	if err != nil {
		at, what := c.nearest(path, err.Error())
		c.problem(at, what, "")
		return nil
	}
	return v
}

// vaultKeys reads the keys that a vault has, each version of them.
func (c *compiler) vaultKeys(path, name string) []sigstore.PublicKey {
	var list []sigstore.PublicKey
	for _, p := range c.material.pieces[path] {
		for rest := p.data; len(bytes.TrimSpace(rest)) > 0; {
			var block *pem.Block
			if block, rest = pem.Decode(rest); block == nil {
				c.problem(path, p.file+" is not in PEM", "Report this")
				break
			}
			key, err := sigstore.ParsePublicKey(pem.EncodeToMemory(block))
			if err != nil {
				c.problem(path, p.file+": "+strings.TrimPrefix(err.Error(), "public key: "), "Name another key of the vault")
				continue
			}
			object, err := trust.ParseID(p.file)
			if err != nil {
				c.problem(path, err.Error(), "Report this")
				continue
			}
			list = append(list, sigstore.PublicKey{Name: name, Key: key, Object: objectOf(object)})
		}
	}
	return list
}

// objectWith is the object of a vault in this policy of which a key that is written by
// itself is a version, so that its holder is not two parties; empty where it is none's.
// Of several it is the first by name: the key's signatures meet all of them.
func (c *compiler) objectWith(key crypto.PublicKey) (object string) {
	comparable, ok := key.(interface{ Equal(crypto.PublicKey) bool })
	if !ok {
		return ""
	}
	for path, pieces := range c.material.pieces {
		if !strings.HasSuffix(path, ".azureKeyVault") {
			continue
		}
		for _, p := range pieces {
			id, err := trust.ParseID(p.file)
			if name := objectOf(id); err == nil && id.Kind == trust.Key && holds(p.data, comparable.Equal) && (object == "" || name < object) {
				object = name
			}
		}
	}
	return object
}

// holds reports whether one of the keys in PEM is equal.
func holds(data []byte, equal func(crypto.PublicKey) bool) bool {
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if key, err := sigstore.ParsePublicKey(pem.EncodeToMemory(block)); err == nil && equal(key) {
			return true
		}
	}
	return false
}

// objectOf names the object of a vault that a reference is to, of whichever version.
func objectOf(r trust.Reference) string {
	r.Version = "" // all versions are one party
	return r.String()
}

// publicKey reads one public key, or says why it cannot and gives nil.
func (c *compiler) publicKey(path string, source api.DataSource) crypto.PublicKey {
	data, at := c.data(path, source)
	key, err := sigstore.ParsePublicKey(data)
	if err != nil {
		c.problem(at, strings.TrimPrefix(err.Error(), "public key: "), "Write one public key in PEM, as cosign.pub has it")
		return nil
	}
	return key
}
