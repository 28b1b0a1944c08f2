package auth

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

const (
	alibaba       = "acme-registry.eu-central-1.cr.aliyuncs.com"
	alibabaRole   = "acs:ram::1111222233334444:role/countersign"
	alibabaOIDC   = "acs:ram::1111222233334444:oidc-provider/ack-rrsa-c1"
	alibabaSecret = "user-secret"
)

// TestAlibabasSignature is the example of Alibaba's own page.
func TestAlibabasSignature(t *testing.T) {
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost,
		"https://ecs.cn-shanghai.aliyuncs.com/?RegionId=cn-shanghai&ImageId=win2019_1809_x64_dtc_zh-cn_40G_alibase_20230811.vhd", nil)
	if err != nil {
		t.Fatal(err)
	}
	alibabaKeys{id: "YourAccessKeyId", secret: "YourAccessKeySecret"}.sign(req, "RunInstances", "2014-05-26", "3156853299f313e23d1673dc12e1703d",
		time.Date(2023, 10, 26, 10, 22, 32, 0, time.UTC))
	const want = "ACS3-HMAC-SHA256 Credential=YourAccessKeyId,SignedHeaders=host;x-acs-action;x-acs-content-sha256;x-acs-date;x-acs-signature-nonce;x-acs-version," +
		"Signature=06563a9e1b43f5dfe96b81484da74bceab24a1d853912eee15083a6f0f3283c0"
	if got := req.Header.Get("Authorization"); got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
}

// alibabaSTS is AssumeRoleWithOIDC as its page has it.
func (s *sky) alibabaSTS(w http.ResponseWriter, req *http.Request) {
	if err := req.ParseForm(); err != nil || req.PostForm.Get("Action") != "AssumeRoleWithOIDC" || req.PostForm.Get("Version") != "2015-04-01" || req.PostForm.Get("OIDCToken") != podToken ||
		req.PostForm.Get("RoleArn") != alibabaRole || req.PostForm.Get("OIDCProviderArn") != alibabaOIDC || req.PostForm.Get("RoleSessionName") == "" {
		w.WriteHeader(http.StatusBadRequest)
		_, _ = io.WriteString(w, `{"RequestId":"1","Code":"AuthenticationFail.OIDCToken.Invalid","Message":"`+podToken+`"}`)
		return
	}
	_, _ = io.WriteString(w, `{"Credentials":{"AccessKeyId":"ASIASESSION","AccessKeySecret":"session-secret","SecurityToken":"session-token","Expiration":"2036-01-01T00:00:00Z"}}`)
}

// alibabaCR is GetAuthorizationToken as its page has it; it makes the signature again.
func (s *sky) alibabaCR(w http.ResponseWriter, req *http.Request, n int) {
	said := req.Header.Get("Authorization")
	_, key, _ := strings.Cut(said, "Credential=")
	key, _, _ = strings.Cut(key, ",")
	at, err := time.Parse(time.RFC3339, req.Header.Get("X-Acs-Date"))
	again := req.Clone(req.Context())
	again.Header = http.Header{}
	alibabaKeys{key, s.keys[key], s.sessions[key]}.sign(again, "GetAuthorizationToken", "2018-12-01", req.Header.Get("X-Acs-Signature-Nonce"), at)
	if err != nil || s.keys[key] == "" || again.Header.Get("Authorization") != said || time.Since(at).Abs() > 5*time.Minute || req.Header.Get("X-Acs-Signature-Nonce") == "" {
		w.WriteHeader(http.StatusBadRequest)
		_, _ = io.WriteString(w, `{"Code":"SignatureDoesNotMatch","Message":"x"}`)
		return
	}
	if req.URL.Query().Get("InstanceId") != "cri-acme" {
		_, _ = io.WriteString(w, `{"IsSuccess":false,"Code":"INSTANCE_NOT_EXIST"}`)
		return
	}
	_, _ = fmt.Fprintf(w, `{"IsSuccess":true,"Code":"success","TempUsername":"cr_temp_user","AuthorizationToken":"password-%d","ExpireTime":%d}`, n, time.Now().Add(time.Hour).UnixMilli())
}
