// Package trust keeps certificates and keys that are elsewhere: in Azure Key
// Vaults. It reads them ahead of need, refreshes them behind everybody's back, and
// keeps what was good last for as long as that may count. Nobody who decides ever
// waits for a vault.
package trust
