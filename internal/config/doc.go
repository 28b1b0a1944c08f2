// Package config turns documents into an immutable Snapshot: which policies an
// image must satisfy, and the Chain that judges it. It reads the documents
// strictly, from files that it watches, and is the only package that knows
// every scheme.
//
// It does not judge images, and it asks no registry. Nothing is looked up in
// the file system after a Snapshot is made, but docker configuration files,
// which the store reads as registries ask.
//
// Three promises. A document that is wrong in any way never lets an image pass
// that it would have refused: it stays in force as it was last good, or its
// images are undecided. It never changes what another document decides about
// images of its own. And all that is wrong with it is said at once, with file,
// line, path and remedy.
package config
