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
	// maxListBytes is what all pages of a list may have: 1,000 entries with
	// annotations are some 2 MiB.
	maxListBytes = 8 << 20
	// maxCandidateBytes is what a referrer's manifest may have: it names a signature or
	// a bundle, with some annotations, in about 2 KiB. What is at a tag of Cosign's holds
	// the signatures themselves, in maxManifestBytes.
	maxCandidateBytes = 256 << 10
	// maxName bounds a media type, an artifact type or a digest that is kept; the
	// media types of RFC 6838 have 255 characters at most.
	maxName = 255
	// maxManifestValues bounds what a manifest costs once decoded: 4 MiB of
	// "{}," would be a million descriptors. An image signed 500 times by Cosign
	// has some 30,000.
	maxManifestValues = 1 << 15
	// freeValues and freeObjects are what a manifest of any size may have of values and
	// of objects. Beyond that there is one value for each valueBytes of it and one object
	// for each objectBytes: a descriptor, which is an object of three values, has at
	// least 110 bytes, and takes about twice as many once decoded.
	freeValues, valueBytes   = 512, 16
	freeObjects, objectBytes = 64, 48
	// maxBlobBytes is the most that a decision may read in all.
	maxBlobBytes = 32 << 20
	// maxErrorBytes of an error's body are read, for its code.
	maxErrorBytes = 8 << 10
	// maxTokenBytes bounds a token endpoint's answer: two tokens of 16 KiB, the
	// usual limit of a header, with room to spare.
	maxTokenBytes = 128 << 10
	// maxHeaderBytes of one answer.
	maxHeaderBytes = 64 << 10
	// maxStreamBytes and maxConnBytes are what an HTTP/2 server may send before it is
	// read, of one answer and over one connection.
	maxStreamBytes, maxConnBytes = 256 << 10, 2 << 20
	// maxRedirects is enough for a content network in front of another one.
	maxRedirects = 5
	// maxTag is the longest tag that the distribution specification allows.
	maxTag = 128
	// maxAheadBytes is what manifests that are read ahead may have together, if it is
	// more than one.
	maxAheadBytes = 1 << 20
	// lookAhead is how many manifests of one list are fetched at a time: the
	// round trips of 50 signatures shrink to four, and one list does not take
	// all of a registry's patience.
	lookAhead = 16
	// maxConns is how many requests of one view are under way to one host, so that a
	// rollout of many images is no attack.
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
