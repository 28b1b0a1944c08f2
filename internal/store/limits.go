package store

import "time"

// Bounds on what a registry can make us hold or wait for. Each protects the
// decisions of others: what exceeds one ends that list, manifest or blob with
// LIMIT_EXCEEDED, and whatever was read until then still counts.
const (
	// maxReferrers entries are read of one list. An image that is signed and
	// attested on every build for years has a few hundred.
	maxReferrers = 1000
	// maxPages of one list; registries send 50 to 1,000 entries a page.
	maxPages = 8
	// maxPageBytes is what the distribution specification asks registries to
	// accept of a manifest, and a page is an index.
	maxPageBytes = 4 << 20
	// maxManifestBytes is the same figure, for the same reason.
	maxManifestBytes = 4 << 20
	// maxManifestValues bounds what a manifest costs once decoded: 4 MiB of
	// "{}," would be a million descriptors. An image signed 500 times by Cosign
	// has some 30,000.
	maxManifestValues = 1 << 15
	// maxBlobBytes is the most that a decision may read in all.
	maxBlobBytes = 32 << 20
	// maxErrorBytes of an error's body are read, for its code.
	maxErrorBytes = 8 << 10
	// maxTokenBytes bounds a token endpoint's answer: two tokens of 16 KiB, the
	// usual limit of a header, with room to spare.
	maxTokenBytes = 128 << 10
	// maxHeaderBytes of one answer.
	maxHeaderBytes = 256 << 10
	// maxRedirects is enough for a content network in front of another one.
	maxRedirects = 5
	// maxTag is the longest tag that the distribution specification allows.
	maxTag = 128
	// lookAhead is how many manifests of one list are fetched at a time: the
	// round trips of 50 signatures shrink to four, and one list does not take
	// all of a registry's patience.
	lookAhead = 16
	// maxConns to one host, so that a rollout of many images is no attack.
	maxConns = 64
	// maxTransports is how many sets of CAs keep their connections.
	maxTransports = 256
	// maxRetryAfter bounds how long one answer can keep us from a host.
	maxRetryAfter = time.Hour
)

// How long is remembered what a registry does not say itself.
const (
	// challengeTTL is for how a host wants to be signed in to.
	challengeTTL = time.Hour
	// minTokenLifetime is the specification's, for tokens that do not say.
	minTokenLifetime = time.Minute
	// maxTokenLifetime bounds how long a credential that was taken back works on.
	maxTokenLifetime = time.Hour
	// basicTTL is for a credential that is sent as it is, and may be a
	// helper's that costs a process to ask.
	basicTTL = 5 * time.Minute
)

// renewedAhead is the last part of its life in which something remembered is asked
// for anew, behind whoever wants it then: a fifth.
const renewedAhead = 5

// Budgets of the small caches, each far above what a large cluster needs. The
// caches whose size is worth a choice are in Options.
const (
	tagBytes   = 8 << 20
	hostBytes  = 1 << 20
	tokenBytes = 8 << 20
)
