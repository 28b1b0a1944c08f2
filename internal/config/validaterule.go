package config

import (
	"fmt"

	api "github.com/countersign-dev/countersign/api/v1beta1"
	"github.com/countersign-dev/countersign/internal/trust"
)

func (v validator) require() {
	root := ruleOf(v.doc.Spec.Require)
	v.rule(root)
	checks := root.checks()
	if len(checks) > api.MaxChecks {
		v.at("spec.require", fmt.Sprintf("%d checks are more than the %d that are allowed", len(checks), api.MaxChecks), "Split the policy")
	}
	first := map[string]string{}
	for _, check := range checks {
		path := check.path + ".name"
		name := check.check.Name
		switch {
		case v.reported(path):
		case name == "":
			v.at(path, "is missing", "Name the check; denials and reports call it so")
		case !isWord(name):
			v.at(path, quote(name)+" is not a name", fmt.Sprintf("Write letters, digits, - . and _, at most %d", api.MaxName))
		case first[name] != "":
			v.at(path, quote(name)+" is the name of two checks", "Rename one; the first is "+v.where(first[name]))
		default:
			first[name] = path
		}
	}
}

func (v validator) rule(r rule) {
	switch r.word {
	case wordAll, wordAny:
		v.limit(r.path+"."+r.word, len(r.parts), api.MaxRules)
	case wordAtLeast:
		path := r.path + ".atLeast"
		v.limit(path+".of", len(r.parts), api.MaxRules)
		if _, there := v.lines[path+".count"]; there && !v.reported(path+".count") && (r.count < 1 || r.count > api.MaxCount) {
			v.at(path+".count", fmt.Sprintf("%d signers cannot be wanted", r.count), fmt.Sprintf("Write 1 to %d", api.MaxCount))
		}
	case wordSkip:
		v.text(r.path+".skip.reason", r.skip.Reason, api.MaxReason)
	case wordCheck:
		if path, chosen := r.scheme(); !v.reported(path) {
			chosen.validate(v, path)
		}
	}
	if r.word != wordCheck && r.word != "" && r.check.Name != "" {
		v.at(r.path+".name", "only a check has a name", "Delete it; answers name the policy and the checks")
	}
	for _, part := range r.parts {
		v.rule(part)
	}
}

func (n notationScheme) validate(v validator, path string) {
	stores := n.TrustStores
	v.sources(path+".trustStores.ca", stores.CA)
	v.sources(path+".trustStores.signingAuthority", stores.SigningAuthority)
	v.sources(path+".trustStores.tsa", stores.TSA)
	if n.TrustPolicyDoc != nil {
		v.notaryTrustPolicy(path, n.Notation)
		return
	}
	if _, there := v.lines[path+".trustStores"]; there && !v.reported(path+".trustStores") && len(stores.CA)+len(stores.SigningAuthority) == 0 {
		v.at(path+".trustStores", "nobody is trusted to sign", "Add ca, or signingAuthority")
	}
	if len(stores.TSA) > 0 && len(stores.CA) == 0 {
		v.at(path+".trustStores.tsa", "timestamps matter only to signers of a ca trust store, and there is none", "Add ca, or delete tsa")
	}
	v.trustedIdentities(path+".trustedIdentities", n.TrustedIdentities)
	if v.absent(path + ".level") {
		v.at(path+".level", "is missing", "Write level: "+list(n.Level.Values(), "or"))
	}
	if n.Override != nil {
		v.override(path+".override", n.Level, *n.Override)
	}
	if n.VerifyTimestamp != "" && len(stores.TSA) == 0 {
		v.at(path+".verifyTimestamp", "there is no timestamping authority that it could be about", "Add trustStores.tsa, or delete it")
	}
}

// absent reports whether the field is not there, not even misspelled.
func (v validator) absent(path string) bool {
	_, there := v.lines[path]
	return !there && !v.meant[path]
}

func (v validator) sources(path string, sources []api.TrustStoreSource) {
	v.limit(path, len(sources), api.MaxTrustStoreSources)
	for i, s := range sources {
		at := element(path, i)
		if s.Name != "" && !isWord(s.Name) {
			v.at(at+".name", quote(s.Name)+" is not the name of a trust store", "Write letters, digits and . _ -")
		}
		if s.Name == "" {
			v.empty(at + ".name")
		}
		if s.Inline == "" {
			v.empty(at + ".inline")
		}
		if s.File == "" {
			v.empty(at + ".file")
		}
		if s.Directory == "" {
			v.empty(at + ".directory")
		}
		v.keyReference(at+".secret", s.Secret)
		v.keyReference(at+".configMap", s.ConfigMap)
		if k := s.AzureKeyVault; k != nil {
			v.vaultObjects(at+".azureKeyVault", "certificates", k.VaultURI, trust.Certificate, k.Certificates)
		}
	}
}

func (v validator) trustedIdentities(path string, identities []string) {
	v.limit(path, len(identities), api.MaxTrustedIdentities)
	if v.absent(path) {
		v.at(path, "is missing", `Write "x509.subject: C=…, ST=…, O=…, CN=…", or "*" for everyone whom the trust stores vouch for`)
	}
	if len(identities) < 2 {
		return
	}
	for i, identity := range identities {
		if identity == "*" {
			v.at(element(path, i), `"*" trusts everyone, so that the others say nothing`, "Delete it, or the others")
		}
	}
}

// action is what a level does about a failed validation.
// https://github.com/notaryproject/specifications/blob/v1.1.0/specs/trust-store-trust-policy.md#signature-verification-details
func action(level api.VerificationLevel, validation string) string {
	switch {
	case level == api.LevelStrict, level == api.LevelPermissive && validation == "authenticity":
		return "enforce"
	default:
		return "log"
	}
}

// override refuses to tighten a level: where a client dropped the field, the
// looser level would be left. What loosens can be dropped without harm.
func (v validator) override(path string, level api.VerificationLevel, o api.VerificationOverride) {
	strictness := map[string]int{"skip": 1, "log": 2, "enforce": 3}
	for _, o := range []struct{ validation, action string }{
		{"authenticity", string(o.Authenticity)}, {"authenticTimestamp", string(o.AuthenticTimestamp)},
		{"expiry", string(o.Expiry)}, {"revocation", string(o.Revocation)},
	} {
		if usual := action(level, o.validation); strictness[o.action] > strictness[usual] && level != "" {
			v.at(path+"."+o.validation, fmt.Sprintf("level %s would %s this, and an override only loosens", level, usual),
				"Write a stricter level, and loosen the other validations")
		}
	}
}

func (v validator) notaryTrustPolicy(path string, n *api.Notation) {
	for _, beside := range []string{"trustedIdentities", "level", "override", "verifyTimestamp"} {
		if _, there := v.lines[path+"."+beside]; there {
			v.at(path+"."+beside, "trustPolicyDoc says it already", "Delete one of them")
		}
	}
	at := path + ".trustPolicyDoc"
	if version := n.TrustPolicyDoc.Version; version != "1.0" && version != "" {
		v.at(at+".version", quote(version)+" is not read", `Write "1.0"`)
	}
	v.limit(at+".trustPolicies", len(n.TrustPolicyDoc.TrustPolicies), api.MaxNotaryPolicies)
}
