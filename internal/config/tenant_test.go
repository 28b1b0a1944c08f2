package config_test

import (
	"reflect"
	"strings"
	"testing"

	api "github.com/countersign-dev/countersign/api/v1beta1"
	"github.com/countersign-dev/countersign/internal/config"
)

// TestL25_ATenantHasNoIdentityOfTheProviders: a TrustPolicy of the cluster signs in with
// secrets of its own namespace, or not at all. Each identity that there is has a case.
func TestL25_ATenantHasNoIdentityOfTheProviders(t *testing.T) {
	const ecr = "111122223333.dkr.ecr.eu-west-1.amazonaws.com"
	secret := "{secret: {name: own, key: key}}"
	cases := map[string]struct {
		host, auth string
		own        bool // its secret is the tenant's
	}{
		"azureWorkloadIdentity":   {"shop.azurecr.io", "{}", false},
		"azureManagedIdentity":    {"shop.azurecr.io", "{}", false},
		"azureCLI":                {"shop.azurecr.io", "{}", false},
		"azureServicePrincipal":   {"shop.azurecr.io", "{tenantID: t, clientID: c, clientSecret: " + secret + "}", false},
		"awsWorkloadIdentity":     {ecr, "{}", false},
		"awsAccessKey":            {ecr, "{accessKeyID: AKIAEXAMPLE, secretAccessKey: " + secret + "}", true},
		"googleWorkloadIdentity":  {"eu-docker.pkg.dev", "{}", false},
		"googleServiceAccount":    {"eu-docker.pkg.dev", "{key: {secret: {name: own, key: google}}}", true},
		"alibabaWorkloadIdentity": {"shop-registry.cn-hangzhou.cr.aliyuncs.com", "{instanceID: cri-shop}", false},
		"alibabaAccessKey":        {"shop-registry.cn-hangzhou.cr.aliyuncs.com", "{instanceID: cri-shop, accessKeyID: LTAIEXAMPLE, accessKeySecret: " + secret + "}", true},
	}
	for _, of := range []reflect.Type{reflect.TypeFor[api.AzureIdentity](), reflect.TypeFor[api.CloudIdentity]()} {
		for i := range of.NumField() {
			if name, _, _ := strings.Cut(of.Field(i).Tag.Get("json"), ","); cases[name].host == "" {
				t.Errorf("%s has no case", name)
			}
		}
	}
	reader := held{{Kind: config.KindSecret, Namespace: "team", Name: "own"}: {"key": []byte("x"), "google": []byte(`{"type":"service_account"}`)}}
	for name, c := range cases {
		registries := `registries: [{host: "` + c.host + `", auth: {` + name + `: ` + c.auth + `}}]`
		document := object(t, tenant("team", "p", `"`+c.host+`/**"`, registries, skip("a test")))
		problems := objects(t, reader, "").Update(t.Context(), []*config.Document{document}).Problems()
		refused := false
		for _, p := range problems {
			refused = refused || p.Path == "spec.registries[0].auth."+name && strings.Contains(p.Message, "a TrustPolicy has no identity of") &&
				p.Remedy == "Write a pullSecret, or a ClusterTrustPolicy with namespaces"
		}
		if refused == c.own {
			t.Errorf("%s: refused %v: %v", name, refused, problems)
		}
	}
}

// TestL53_ATrustPolicyListsNoPrivateHosts: the field is the administrator's.
func TestL53_ATrustPolicyListsNoPrivateHosts(t *testing.T) {
	document := object(t, tenant("team", "p", `"shop.example.com/**"`, "privateHosts: [crl.corp.example.com]", skip("a test")))
	problems := objects(t, held{}, "").Update(t.Context(), []*config.Document{document}).Problems()
	if len(problems) != 1 || problems[0].Path != "spec.privateHosts" {
		t.Errorf("%v", problems)
	}
}
