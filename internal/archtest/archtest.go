// Package archtest holds the house together: one test that compares the
// imports of every package with the arrows that the design allows. It has no
// code of its own, and a change of its table is a change of the design.
package archtest
