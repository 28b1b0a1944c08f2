package cluster

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/countersign-dev/countersign/test/pki"
)

// adminToken is whom the API server takes for an administrator; it listens on
// the loopback interface for as long as a test runs.
const adminToken = "administrator"

// startEtcd runs etcd without the waits that keep data safe.
func (c *Cluster) startEtcd(ctx context.Context) error {
	ports, err := freePorts(2)
	if err != nil {
		return err
	}
	c.etcdURL = fmt.Sprintf("http://127.0.0.1:%d", ports[0])
	peers := fmt.Sprintf("http://127.0.0.1:%d", ports[1])
	c.etcd, err = start(c.dir, "etcd", c.tools.Etcd, nil,
		"--data-dir="+filepath.Join(c.dir, "etcd"), "--unsafe-no-fsync",
		"--listen-client-urls="+c.etcdURL, "--advertise-client-urls="+c.etcdURL,
		"--listen-peer-urls="+peers, "--initial-advertise-peer-urls="+peers, "--initial-cluster=default="+peers)
	if err != nil {
		return err
	}
	return c.etcd.ready(ctx, answers(http.DefaultClient, c.etcdURL+"/health"))
}

// startAPIServer runs kube-apiserver with RBAC and its default admission plug-ins.
func (c *Cluster) startAPIServer(ctx context.Context) error {
	ports, err := freePorts(1)
	if err != nil {
		return err
	}
	pair, err := c.authority.Issue("kubernetes.default.svc")
	if err != nil {
		return err
	}
	certFile, keyFile, err := pair.Write(filepath.Join(c.dir, "apiserver"))
	if err != nil {
		return err
	}
	c.serviceAccountKey = filepath.Join(c.dir, "service-account.key")
	if err := writeKey(c.serviceAccountKey); err != nil {
		return err
	}
	tokens := filepath.Join(c.dir, "tokens.csv")
	if err := os.WriteFile(tokens, []byte(adminToken+",admin,admin,system:masters\n"), 0o600); err != nil {
		return err
	}
	c.Config = &rest.Config{
		Host:            fmt.Sprintf("https://127.0.0.1:%d", ports[0]),
		BearerToken:     adminToken,
		TLSClientConfig: rest.TLSClientConfig{CAData: c.authority.PEM},
		QPS:             -1, // the tests wait for what they ask
		WarningHandler:  &c.Warnings,
	}
	c.apiserverArgs = []string{
		"--etcd-servers=" + c.etcdURL,
		"--bind-address=127.0.0.1", fmt.Sprintf("--secure-port=%d", ports[0]), "--endpoint-reconciler-type=none",
		"--tls-cert-file=" + certFile, "--tls-private-key-file=" + keyFile,
		"--token-auth-file=" + tokens, "--authorization-mode=RBAC",
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file=" + c.serviceAccountKey, "--service-account-signing-key-file=" + c.serviceAccountKey,
		"--service-cluster-ip-range=10.0.0.0/24", "--allow-privileged",
	}
	return c.RestartAPIServer(ctx)
}

// StopAPIServer ends the API server; what is in etcd stays.
func (c *Cluster) StopAPIServer() { c.apiserver.stop() }

// RestartAPIServer runs the API server again as it was.
func (c *Cluster) RestartAPIServer(ctx context.Context) (err error) {
	c.apiserver, err = start(c.dir, "kube-apiserver", c.tools.APIServer, nil, c.apiserverArgs...)
	if err != nil {
		return err
	}
	client, err := rest.HTTPClientFor(c.Config)
	if err != nil {
		return err
	}
	return c.apiserver.ready(ctx, answers(client, c.Config.Host+"/readyz"))
}

// startControllerManager runs what makes Pods of Deployments, service accounts
// for namespaces, and an end of what was deleted.
func (c *Cluster) startControllerManager(ctx context.Context) error {
	kubeconfig, err := c.kubeconfig()
	if err != nil {
		return err
	}
	rootCA := filepath.Join(c.dir, "ca.crt")
	if err := os.WriteFile(rootCA, c.authority.PEM, 0o600); err != nil {
		return err
	}
	ports, err := freePorts(1)
	if err != nil {
		return err
	}
	c.controllers, err = start(c.dir, "kube-controller-manager", c.tools.ControllerManager, nil,
		"--kubeconfig="+kubeconfig, "--leader-elect=false",
		"--bind-address=127.0.0.1", fmt.Sprintf("--secure-port=%d", ports[0]),
		"--service-account-private-key-file="+c.serviceAccountKey, "--root-ca-file="+rootCA)
	if err != nil {
		return err
	}
	return c.controllers.ready(ctx, func(ctx context.Context) error {
		_, err := c.defaultServiceAccount(ctx, "default")
		return err
	})
}

// kubeconfig writes how to reach the API server as administrator.
func (c *Cluster) kubeconfig() (string, error) {
	path := filepath.Join(c.dir, "kubeconfig")
	return path, clientcmd.WriteToFile(clientcmdapi.Config{
		CurrentContext: "test",
		Contexts:       map[string]*clientcmdapi.Context{"test": {Cluster: "test", AuthInfo: "admin"}},
		Clusters:       map[string]*clientcmdapi.Cluster{"test": {Server: c.Config.Host, CertificateAuthorityData: c.authority.PEM}},
		AuthInfos:      map[string]*clientcmdapi.AuthInfo{"admin": {Token: adminToken}},
	}, path)
}

// Kubeconfig writes how a ServiceAccount reaches the API server.
func (c *Cluster) Kubeconfig(ctx context.Context, namespace, name, path string) error {
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	request := &authenticationv1.TokenRequest{}
	if err := c.Client.SubResource("token").Create(ctx, account, request); err != nil {
		return err
	}
	return clientcmd.WriteToFile(clientcmdapi.Config{
		CurrentContext: "test",
		Contexts:       map[string]*clientcmdapi.Context{"test": {Cluster: "test", AuthInfo: name}},
		Clusters:       map[string]*clientcmdapi.Cluster{"test": {Server: c.Config.Host, CertificateAuthorityData: c.authority.PEM}},
		AuthInfos:      map[string]*clientcmdapi.AuthInfo{name: {Token: request.Status.Token}},
	}, path)
}

func writeKey(path string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), 0o600)
}

// authorities puts several CA certificates into one bundle.
func authorities(all ...*pki.Authority) []byte {
	var bundle strings.Builder
	for _, a := range all {
		bundle.Write(a.PEM)
	}
	return []byte(bundle.String())
}
