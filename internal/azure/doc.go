// Package azure holds who we are at Azure: identities, the tokens that they get,
// which hosts are Azure's, and what its refusals mean. It asks Microsoft Entra ID
// and the metadata service of the node, and nobody else.
package azure
