package store

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"syscall"

	"github.com/countersign-dev/countersign/internal/redact"
	"github.com/countersign-dev/countersign/internal/verifier"
)

// failure is why an attempt failed, and whether another may succeed.
type failure struct {
	err   *verifier.Error
	again bool
	// closed is the host that wants to be left alone, where that is why.
	closed string
	// unanswered: the registry's host refused the connection, or cannot be reached.
	unanswered bool
}

// fail makes a failure. The cause is kept without the secrets of signed URLs, to which
// registries redirect for blobs.
func fail(reason verifier.Reason, cause error, remedy, message string, args ...any) *failure {
	return &failure{err: &verifier.Error{Reason: reason, Message: fmt.Sprintf(message, args...), Remedy: remedy, Err: redact.Error(cause)}}
}

func (f *failure) retryable() *failure {
	f.again = true
	return f
}

// unreachable puts the cause of a request without an answer into words, where
// the cause is still at hand.
func (c *client) unreachable(host string, err error) *failure {
	var (
		refused     *refusedAddress
		dns         *net.DNSError
		authority   x509.UnknownAuthorityError
		hostname    x509.HostnameError
		certificate x509.CertificateInvalidError
		alert       tls.AlertError
		redirect    *redirectError
		said        = func(remedy, message string, args ...any) *failure {
			return fail(verifier.ReasonRegistryUnreachable, err, remedy, "%s "+message, append([]any{c.place(host)}, args...)...)
		}
	)
	switch {
	case errors.As(err, &redirect):
		return fail(verifier.ReasonRegistryInvalid, err, "", "%s sent a redirect that is not followed", c.place(host))
	case errors.As(err, &refused) && refused.unnamed:
		return said(c.nameRemedy(host), "is at %s, %s address, and no policy names that host", refused.addr, refused.what)
	case errors.As(err, &refused):
		return said("Name the registry by an address that others reach it by", "is at %s, %s address, which is never dialled", refused.addr, refused.what)
	case errors.As(err, &authority):
		return said(fmt.Sprintf("Set registries[].ca of %s to the authority that issued its certificate", host), "has a certificate signed by an unknown authority")
	case errors.As(err, &hostname):
		return said("Name the registry as its certificate does", "has a certificate for another name")
	case errors.As(err, &certificate) && certificate.Reason == x509.Expired:
		return said("Renew the registry's certificate", "has a certificate that has expired or is not yet valid")
	case errors.As(err, &certificate):
		return said("Renew the registry's certificate", "has a certificate that is not valid")
	case errors.Is(err, http.ErrSchemeMismatch):
		return said(fmt.Sprintf("If that is meant, set registries[].plainHTTP of %s", host), "speaks plain HTTP, not TLS")
	case errors.As(err, &alert):
		return said("", "refused the TLS handshake (%s)", alert)
	case errors.As(err, &dns) && dns.IsNotFound:
		return said("Check the host name in the image reference", "is not known to DNS")
	case errors.As(err, &dns):
		return said("", "could not be looked up in DNS").retryable()
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return said("", "did not answer within %s", c.store.options.AttemptTimeout).retryable()
	case errors.Is(err, syscall.ECONNREFUSED):
		return said("Check that the registry runs and that its port is right", "refused the connection").retryable()
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return said("", "cut the connection").retryable()
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH):
		return said("Check the network policies between here and the registry", "cannot be reached from this network").retryable()
	}
	return said("", "could not be asked").retryable()
}

// place names a host that is not the registry itself as what it is.
func (c *client) place(host string) string {
	if host == c.host {
		return "the registry " + host
	}
	return host + ", where the registry " + c.host + " refers to,"
}

// refused puts a 401 or 403 into words.
func (c *client) refused(status int, host string, shown bool) *failure {
	name := c.registry.Host
	switch {
	case !shown && c.grant() != "":
		return fail(verifier.ReasonRegistryUnauthorized, fmt.Errorf("%s answered %d", host, status), c.grant(),
			"the registry %s wants a credential and there is none for it", name)
	case !shown:
		return fail(verifier.ReasonRegistryUnauthorized, fmt.Errorf("%s answered %d", host, status),
			fmt.Sprintf("Check that the image exists, and set registries[].auth of %s", name),
			"the registry %s wants a credential and none is set", name)
	case c.grant() != "":
		return fail(verifier.ReasonRegistryUnauthorized, fmt.Errorf("%s answered %d", host, status), c.grant(),
			"the registry %s does not let the configured identity read here", name)
	case status == http.StatusForbidden:
		return fail(verifier.ReasonRegistryUnauthorized, fmt.Errorf("%s answered %d", host, status),
			"Check that the image exists and that the credential may pull from this repository",
			"the registry %s does not let the configured credential read here", name)
	}
	return fail(verifier.ReasonRegistryUnauthorized, fmt.Errorf("%s answered %d", host, status),
		fmt.Sprintf("Renew the credential in registries[].auth of %s", name),
		"the registry %s refused the configured credential", name)
}

// grant is how the credential is let read, where its source knows that.
func (c *client) grant() string {
	if source, ok := c.registry.Credential.(interface{ Grant(host string) string }); ok {
		return source.Grant(c.registry.Host)
	}
	return ""
}

// unexpected puts into words a status that says nothing about the image.
func (c *client) unexpected(host string, status int) *failure {
	cause := fmt.Errorf("%s answered %d", host, status)
	switch {
	case status == http.StatusTooManyRequests:
		return fail(verifier.ReasonRegistryThrottled, cause,
			"Try again later; a credential or a mirror usually has a higher limit",
			"%s has had too many requests", c.place(host)).retryable()
	case status == http.StatusRequestTimeout, status >= 500 && status != http.StatusNotImplemented:
		return fail(verifier.ReasonRegistryUnreachable, cause, "", "%s answered %d", c.place(host), status).retryable()
	case status == http.StatusBadRequest && c.registry.PlainHTTP:
		return fail(verifier.ReasonRegistryInvalid, cause,
			fmt.Sprintf("If it speaks TLS, remove registries[].plainHTTP of %s", c.registry.Host),
			"the registry %s answered %d to plain HTTP", host, status)
	}
	return fail(verifier.ReasonRegistryInvalid, cause, "", "%s answered %d", c.place(host), status)
}

// gaveUp is what a caller gets whose own time ended before the shared work did.
func gaveUp(host string, err error) error {
	var known *verifier.Error
	if errors.As(err, &known) {
		return known
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return &verifier.Error{
			Reason:  verifier.ReasonTimeout,
			Message: fmt.Sprintf("the registry %s did not answer in time", host),
			Remedy:  "Try again: what was begun goes on",
			Err:     redact.Error(err),
		}
	}
	return &verifier.Error{Reason: verifier.ReasonInternal, Message: "an unexpected error", Err: redact.Error(err)}
}

// nameRemedy is how a policy names a host. A TrustPolicy names one in vain.
func (c *client) nameRemedy(host string) string {
	switch {
	case c.tenant && host == c.host:
		return "If that is right, have " + host + " listed in privateHosts of the ClusterTrustPolicy"
	case c.tenant:
		return "If that is right, add it to registries[].redirectHosts of " + c.host + ", or to tokenHosts where it gives tokens, and have it listed in privateHosts of the ClusterTrustPolicy"
	case host == c.host:
		return "If that is right, name " + host + " under registries, or without wildcard in images"
	}
	return "If that is right, add it to registries[].redirectHosts of " + c.host + ", or to tokenHosts where it gives tokens"
}
