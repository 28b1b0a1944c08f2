package main

import (
	"fmt"
	"strings"

	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"

	api "github.com/countersign-dev/countersign/api/v1beta1"
)

const (
	// maxText bounds what has no bound of its own: certificates, keys and a
	// Sigstore trusted root, which are the longest.
	maxText = 1 << 18
	// maxName bounds names and identities.
	maxName = 512
	// maxSubdomain bounds names of objects and their keys.
	maxSubdomain = 253
	// label and subdomain are the forms of names of namespaces and objects.
	label     = `^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	subdomain = `^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$`
	// What is said of patterns, namespaces and hosts.
	sayPattern   = "write registry/repository, without tag or digest; Docker Hub is docker.io, and registry/** is all that a registry has"
	sayNamespace = "write a namespace or a pattern of them: lower case letters, digits and -, and * for any characters"
	sayVault     = "write the URI of a vault, as https://NAME.vault.azure.net"
	saySpan      = "write a number with its unit, as 90s, 5m or 24h"
	sayHost      = "write the host as image references do, without https://, path or wildcard"
	// vault is the form of a vault's URI, and span that of a span of time.
	vault = `^https://[a-zA-Z0-9.-]+/?$`
	span  = `^([0-9.]+(h|m|s|ms))+$`
	// word is the form of names.
	word = `^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$`
	// pattern is what every pattern of images has; what else is wrong with one,
	// the policy's condition says.
	pattern = `^[^/@\s]+/[^@:\s]+$`
)

// bounds are what a list or a text may be long, and its form.
type bounds struct {
	least, most int64
	item        int64 // of each text in a list
	form        string
	// say is what is said of a text of another form; the form itself, if empty.
	say string
}

// limits of the fields, as package v1beta1 and its reader have them.
func limits() map[string]bounds {
	return map[string]bounds{
		"PolicySpec.images":                   {1, api.MaxImages, api.MaxPattern, pattern, sayPattern},
		"PolicySpec.owner":                    {1, api.MaxOwner, 0, "", ""},
		"PolicySpec.helpURL":                  {1, api.MaxHelpURL, 0, `^https?://\S+$`, "write a link, as https://wiki.example.com/images"},
		"PolicySpec.registries":               {1, api.MaxRegistries, 0, "", ""},
		"PolicySpec.keyVaults":                {1, api.MaxKeyVaults, 0, "", ""},
		"AzureWorkloadIdentity.endpoints":     {1, api.MaxEndpoints, 255, `^[^/@*\s]+$`, sayHost},
		"AzureManagedIdentity.endpoints":      {1, api.MaxEndpoints, 255, `^[^/@*\s]+$`, sayHost},
		"AzureServicePrincipal.endpoints":     {1, api.MaxEndpoints, 255, `^[^/@*\s]+$`, sayHost},
		"Registry.mirror":                     {1, 255, 0, `^[^/@*\s]+(/[^@*\s]+)?$`, "write its host and what goes before repositories there, as mirror.example.com/hub"},
		"AWSWorkloadIdentity.roleARN":         {1, 2048, 0, `^arn:`, ""},
		"AWSAccessKey.accessKeyID":            {1, 128, 0, `^\w+$`, ""},
		"AlibabaWorkloadIdentity.instanceID":  {1, 128, 0, `^[\w-]+$`, ""},
		"AlibabaAccessKey.instanceID":         {1, 128, 0, `^[\w-]+$`, ""},
		"AlibabaAccessKey.accessKeyID":        {1, 128, 0, `^[\w.]+$`, ""},
		"AzureCLI.endpoints":                  {1, api.MaxEndpoints, 255, `^[^/@*\s]+$`, sayHost},
		"KeyVault.vaultURI":                   {1, 255, 0, vault, sayVault},
		"KeyVault.refreshInterval":            {1, 32, 0, span, saySpan},
		"KeyVault.maxAge":                     {1, 32, 0, span, saySpan},
		"KeyVaultCertificates.vaultURI":       {1, 255, 0, vault, ""},
		"KeyVaultCertificates.certificates":   {1, api.MaxKeyVaultObjects, 0, "", ""},
		"KeyVaultKeys.vaultURI":               {1, 255, 0, vault, ""},
		"KeyVaultKeys.keys":                   {1, api.MaxKeyVaultObjects, 0, "", ""},
		"KeyVaultObject.name":                 {1, 127, 0, `^[0-9A-Za-z-]+$`, ""},
		"KeyVaultObject.version":              {1, 127, 0, `^[0-9A-Za-z-]+$`, ""},
		"KeyVaultObject.id":                   {1, 512, 0, `^https://`, ""},
		"KeyVaultObject.versionHistoryLimit":  {1, api.MaxVersionHistory, 0, "", ""},
		"ClusterTrustPolicySpec.namespaces":   {1, api.MaxNamespaces, 63, `^[a-z0-9*]([a-z0-9*-]*[a-z0-9*])?$`, sayNamespace},
		"ClusterTrustPolicySpec.privateHosts": {1, api.MaxPrivateHosts, 255, `^[^/@*\s]+$`, sayHost},
		"Registry.host":                       {1, 255, 0, `^[^/@*\s]+$`, sayHost},
		"Registry.redirectHosts":              {1, api.MaxTokenHosts, 255, `^[^/@*\s]+$`, sayHost},
		"Registry.tokenHosts":                 {1, api.MaxTokenHosts, 255, `^[^/@*\s]+$`, sayHost},
		"Rule.all":                            {1, api.MaxRules, 0, "", ""},
		"Rule.any":                            {1, api.MaxRules, 0, "", ""},
		"NestedRule.all":                      {1, api.MaxRules, 0, "", ""},
		"NestedRule.any":                      {1, api.MaxRules, 0, "", ""},
		"InnerRule.all":                       {1, api.MaxRules, 0, "", ""},
		"InnerRule.any":                       {1, api.MaxRules, 0, "", ""},
		"AtLeast.of":                          {1, api.MaxRules, 0, "", ""},
		"AtLeast.count":                       {1, api.MaxCount, 0, "", ""},
		"Skip.reason":                         {1, api.MaxReason, 0, "", ""},
		"Check.name":                          {1, api.MaxName, 0, word, ""},
		"Notation.trustedIdentities":          {1, api.MaxTrustedIdentities, maxName, "", ""},
		"TrustStores.ca":                      {1, api.MaxTrustStoreSources, 0, "", ""},
		"TrustStores.signingAuthority":        {1, api.MaxTrustStoreSources, 0, "", ""},
		"TrustStores.tsa":                     {1, api.MaxTrustStoreSources, 0, "", ""},
		"TrustStoreSource.name":               {1, api.MaxName, 0, word, ""},
		"NotaryTrustPolicy.version":           {1, 3, 0, `^1\.0$`, ""},
		"NotaryTrustPolicy.trustPolicies":     {1, api.MaxNotaryPolicies, 0, "", ""},
		"NotaryPolicy.registryScopes":         {1, api.MaxImages, maxName, "", ""},
		"NotaryPolicy.trustStores":            {1, 3 * api.MaxTrustStoreSources, maxName, "", ""},
		"NotaryPolicy.trustedIdentities":      {1, api.MaxTrustedIdentities, maxName, "", ""},
		"Cosign.keys":                         {1, api.MaxKeys, 0, "", ""},
		"Cosign.logKeys":                      {1, api.MaxLogKeys, 0, "", ""},
		"Cosign.signatureRepository":          {3, api.MaxPattern, 0, `^[^/@*\s]+/[^@:*\s]+$`, ""},
		"PublicKeySource.name":                {1, api.MaxName, 0, word, ""},
		"ObjectReference.name":                {1, maxSubdomain, 0, subdomain, ""},
		"ObjectReference.namespace":           {1, api.MaxName, 0, label, ""},
		"KeyReference.key":                    {1, maxSubdomain, 0, `^[-._a-zA-Z0-9]+$`, ""},
		"ExemptionSpec.images":                {1, api.MaxImages, api.MaxPattern, pattern, sayPattern},
		"ExemptionSpec.digests":               {1, api.MaxDigests, 256, `^(sha256:[a-f0-9]{64}|sha384:[a-f0-9]{96}|sha512:[a-f0-9]{128})$`, "write a digest, as sha256: and 64 hexadecimal digits"},
		"ExemptionSpec.namespaces":            {1, api.MaxNamespaces, api.MaxName, `^[a-z0-9*]([a-z0-9*-]*[a-z0-9*])?$`, sayNamespace},
		"ExemptionSpec.reason":                {1, api.MaxReason, 0, "", ""},
		"ExemptionSpec.owner":                 {1, api.MaxOwner, 0, "", ""},
	}
}

// limit bounds a field. A list without bounds of its own is an error: the API
// server counts what validation may cost by them.
func limit(p property, schema *apiextensions.JSONSchemaProps) error {
	b, known := limits()[p.owner+"."+p.name]
	switch {
	case schema.Type == "integer":
		least, most := float64(b.least), float64(b.most)
		schema.Minimum, schema.Maximum = &least, &most
	case schema.Type == "array" && !known:
		return fmt.Errorf("%s.%s is a list without limits", p.owner, p.name)
	case schema.Type == "array":
		schema.MinItems, schema.MaxItems = &b.least, &b.most
		if items := schema.Items.Schema; items.Type == "string" {
			one := int64(1)
			items.MinLength, items.MaxLength = &one, &b.item
			b.shape(items)
		}
	case schema.Type == "string" && len(schema.Enum) == 0:
		if !known {
			b = bounds{least: 1, most: maxText}
		}
		schema.MinLength, schema.MaxLength = &b.least, &b.most
		b.shape(schema)
	}
	return nil
}

// shape wants a text's form.
func (b bounds) shape(text *apiextensions.JSONSchemaProps) {
	if b.say == "" {
		text.Pattern = b.form
		return
	}
	text.XValidations = append(text.XValidations, apiextensions.ValidationRule{Rule: fmt.Sprintf("self.matches(r'%s')", b.form), Message: b.say})
}

// rules are what more than one field says together, by type, as CEL. They are
// what internal/config refuses as well, in the words of a person at kubectl.
func rules(name string, choice []string) []apiextensions.ValidationRule {
	rule := func(rule, message string) apiextensions.ValidationRule {
		return apiextensions.ValidationRule{Rule: rule, Message: message}
	}
	switch name {
	case "Rule", "NestedRule", "InnerRule", "Check":
		var composed []string
		for _, field := range choice {
			if field != "notation" && field != "cosign" {
				composed = append(composed, "has(self."+field+")")
			}
		}
		if composed == nil {
			return []apiextensions.ValidationRule{rule("has(self.name)", "name the check; denials and reports call it so")}
		}
		return []apiextensions.ValidationRule{rule("has(self.name) != ("+strings.Join(composed, " || ")+")", "a check needs a name, and only a check has one")}
	case "AtLeast":
		return []apiextensions.ValidationRule{rule("self.count <= size(self.of) * 16", "more signers are wanted than the checks could name")}
	case "Notation":
		return []apiextensions.ValidationRule{
			rule("has(self.trustPolicyDoc) || has(self.level)", "write level: strict, permissive or audit"),
			rule("has(self.trustPolicyDoc) || has(self.trustedIdentities)", `write trustedIdentities: "x509.subject: C=…, ST=…, O=…, CN=…", or "*"`),
			rule("!has(self.trustPolicyDoc) || !(has(self.level) || has(self.trustedIdentities) || has(self.override) || has(self.verifyTimestamp))",
				"trustPolicyDoc says level, trustedIdentities, override and verifyTimestamp already; delete one of them"),
			rule("has(self.trustPolicyDoc) || has(self.trustStores.ca) || has(self.trustStores.signingAuthority)", "nobody is trusted to sign; add trustStores.ca, or signingAuthority"),
			rule("!has(self.verifyTimestamp) || has(self.trustStores.tsa)", "there is no timestamping authority that verifyTimestamp could be about; add trustStores.tsa, or delete it"),
		}
	case "Cosign":
		return []apiextensions.ValidationRule{
			rule("self.transparencyLog == 'ignored' || has(self.logKeys) || has(self.trustedRoot)", "no log is trusted whose proof could be verified; add logKeys or trustedRoot, or write transparencyLog: ignored"),
			rule("self.transparencyLog != 'ignored' || !(has(self.logKeys) || has(self.trustedRoot))", "nobody looks at logs with transparencyLog: ignored; delete logKeys and trustedRoot"),
		}
	case "Registry":
		return []apiextensions.ValidationRule{
			rule("!has(self.ca) || !has(self.plainHTTP) || !self.plainHTTP", "there is no TLS with plainHTTP, and so nothing to use a ca for; delete one of them"),
			rule("!has(self.clientCertificate) || !has(self.plainHTTP) || !self.plainHTTP", "there is no TLS with plainHTTP, and so nobody to show a certificate to; delete one of them"),
			rule("!has(self.plainHTTP) || !self.plainHTTP || !has(self.auth) || !(has(self.auth.azureWorkloadIdentity) || has(self.auth.azureManagedIdentity) || has(self.auth.azureServicePrincipal) || has(self.auth.azureCLI) || has(self.auth.awsWorkloadIdentity) || has(self.auth.awsAccessKey) || has(self.auth.googleWorkloadIdentity) || has(self.auth.googleServiceAccount) || has(self.auth.alibabaWorkloadIdentity) || has(self.auth.alibabaAccessKey))",
				"there is no TLS with plainHTTP, and an identity is shown over nothing else; delete plainHTTP"),
		}
	case "StaticCredential":
		return []apiextensions.ValidationRule{rule("has(self.username) == has(self.password)", "a password goes with a username, and a token goes alone")}
	case "PolicySpec", "ClusterTrustPolicySpec":
		return []apiextensions.ValidationRule{
			rule("!has(self.whenUndecided) || self.whenUndecided != 'allow' || self.images.all(image, !image.split('/')[0].contains('*'))",
				"whenUndecided: allow needs a literal host in every pattern of images"),
		}
	}
	return nil
}
