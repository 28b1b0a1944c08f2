// Package ratify reads the objects of Ratify, API group
// config.ratify.deislabs.io, and says the same in documents of ours. What it
// cannot say it names, and never says something weaker instead.
//
// An object that is wrong, or that asks for what there is not, is a Note, and
// what depends on it is not said at all: images that only it would have trusted
// are refused.
package ratify
