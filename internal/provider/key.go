package provider

import (
	"strings"

	"github.com/countersign-dev/countersign/internal/verifier"
)

const (
	// maxKeyLength bounds one key: a reference of at most 1,024 bytes, a
	// namespace, a ServiceAccount, and the names of ten pull secrets.
	maxKeyLength = 4 << 10
	// maxLabel and maxSubdomain are Kubernetes' bounds for names (RFC 1123).
	maxLabel, maxSubdomain = 63, 253
)

// ParseKey reads what Gatekeeper asks about:
//
//	image
//	[namespace]image
//	[namespace;sa=name;secrets=a,b]image
//
// A colon inside the brackets means that they are the image's own, around an
// IPv6 host. The error is a *verifier.Error with ReasonReferenceInvalid.
func ParseKey(key string) (verifier.Request, error) {
	if len(key) > maxKeyLength {
		return verifier.Request{}, invalidKey("the key is longer than 4096 bytes")
	}
	var request verifier.Request
	scope, image, scoped := splitKey(key)
	switch {
	case scoped:
		if problem := readScope(&request, scope); problem != "" {
			return verifier.Request{}, invalidKey(problem)
		}
	case strings.HasPrefix(key, "[") && !strings.Contains(key, "]"):
		return verifier.Request{}, invalidKey("the key's bracket is not closed")
	}
	var err error
	if request.Image, err = verifier.ParseReference(image); err != nil {
		return verifier.Request{}, err
	}
	return request, nil
}

// splitKey parts what is asked for from the image. Brackets with a colon inside
// are the image's own.
func splitKey(key string) (scope, image string, scoped bool) {
	if opened, bracket := strings.CutPrefix(key, "["); bracket {
		scope, image, closed := strings.Cut(opened, "]")
		if closed && !strings.Contains(scope, ":") {
			return scope, image, true
		}
	}
	return "", key, false
}

// namespaceOf is the namespace that a key names, whether or not it is one.
func namespaceOf(key string) string {
	scope, _, _ := splitKey(key)
	namespace, _, _ := strings.Cut(scope, ";")
	return namespace
}

// readScope reads what is inside the brackets, and says what is wrong with it.
func readScope(request *verifier.Request, scope string) (problem string) {
	namespace, fields, more := strings.Cut(scope, ";")
	if !isLabel(namespace) {
		return "the key's namespace is not the name of one"
	}
	request.Namespace = namespace
	for more {
		var field string
		field, fields, more = strings.Cut(fields, ";")
		name, value, _ := strings.Cut(field, "=")
		switch {
		case name == "sa" && request.ServiceAccount == "" && isSubdomain(value):
			request.ServiceAccount = value
		case name == "secrets" && request.PullSecrets == nil:
			request.PullSecrets = strings.Split(value, ",")
			for _, secret := range request.PullSecrets {
				if !isSubdomain(secret) {
					return "the key's secrets are not names of Secrets"
				}
			}
		default:
			return "the key has a field that is unknown, repeated or malformed"
		}
	}
	return ""
}

func invalidKey(problem string) *verifier.Error {
	return &verifier.Error{
		Reason: verifier.ReasonReferenceInvalid, Message: problem,
		Remedy: "Write it as image, [namespace]image or [namespace;sa=name;secrets=a,b]image",
	}
}

// isLabel reports whether s is a DNS label as RFC 1123 and Kubernetes have it.
func isLabel(s string) bool {
	return len(s) <= maxLabel && isPart(s)
}

// isPart reports whether s is a part of a name: letters, digits and dashes within.
func isPart(s string) bool {
	if s == "" || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for i := range len(s) {
		if c := s[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}

// isSubdomain reports whether s is a name of objects as Kubernetes has it: parts
// with dots between, which as labels of DNS would have a length each.
func isSubdomain(s string) bool {
	if len(s) > maxSubdomain {
		return false
	}
	for part := range strings.SplitSeq(s, ".") {
		if !isPart(part) {
			return false
		}
	}
	return true
}
