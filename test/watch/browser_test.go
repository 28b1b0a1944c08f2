package watch

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	corev1 "k8s.io/api/core/v1"
)

// screenshots are kept beside what is built, for people.
const screenshots = "../../dist/screenshots"

// browser runs Debian's Chromium, without a window.
func browser(t *testing.T) context.Context {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("there is no chromium here: apt-get install chromium")
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.WindowSize(1280, 900))
	ctx, cancel := chromedp.NewExecAllocator(t.Context(), options...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	ctx, cancel = context.WithTimeout(ctx, 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func shoot(ctx context.Context, t *testing.T, name string) {
	t.Helper()
	var image []byte
	must(t, chromedp.Run(ctx, chromedp.FullScreenshot(&image, 100)))
	must(t, os.MkdirAll(screenshots, 0o700))
	must(t, os.WriteFile(filepath.Join(screenshots, name+".png"), image, 0o600))
}

// TestThePageInABrowser: signed in with a token, searched by keyboard, to be read in
// the dark and without scripts, and nothing in it runs that a cluster has named.
func TestThePageInABrowser(t *testing.T) {
	s := in(t, "browser")
	token := s.reader(t, "browser-viewer", "browser")
	s.push(t, "browser/cart:1.4", true)
	s.push(t, "browser/unsigned:1", false)
	s.pod(t, "browser", "cart", "browser/cart:1.4")
	s.pod(t, "browser", "unsigned", "browser/unsigned:1")
	s.pod(t, "browser", "strange", "browser/cart:1.4", func(p *corev1.Pod) {
		p.Status.ContainerStatuses[0].ImageID = "<img src=x onerror=\"document.title='hacked'\">"
	})
	s.become(t, token, "browser", map[string]string{"cart/main": "TRUSTED", "unsigned/main": "UNKNOWN", "strange/main": "ERROR"})

	ctx := browser(t)
	at := "http://" + s.watcher.Provider
	var title, text, address string
	must(t, chromedp.Run(ctx,
		chromedp.Navigate(at+"/"), chromedp.WaitVisible(`input[name=token]`),
	))
	shoot(ctx, t, "sign-in")
	must(t, chromedp.Run(ctx,
		chromedp.SendKeys(`input[name=token]`, token+kb.Enter), chromedp.WaitVisible(`#results table`),
		chromedp.Text(`main`, &text),
	))
	for _, part := range []string{"browser", "UNKNOWN", "ERROR", "TRUSTED", "no signature found", "Download as CSV"} {
		if !strings.Contains(text, part) {
			t.Errorf("the page does not say %q", part)
		}
	}
	shoot(ctx, t, "light")
	must(t, chromedp.Run(ctx,
		emulation.SetEmulatedMedia().WithFeatures([]*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: "dark"}}),
		chromedp.Reload(), chromedp.WaitVisible(`#results table`),
	))
	shoot(ctx, t, "dark")
	var first, images int
	must(t, chromedp.Run(ctx,
		chromedp.Focus(`input[name=q]`), chromedp.KeyEvent("unsigned"+kb.Enter),
		chromedp.WaitVisible(`#results tbody tr`), chromedp.Location(&address),
		chromedp.Evaluate(`document.querySelectorAll("#results tbody tr").length`, &first),
		chromedp.Evaluate(`document.images.length`, &images), chromedp.Title(&title),
	))
	if !strings.Contains(address, "q=unsigned") || first != 1 || images != 0 || title != "What runs now" {
		t.Errorf("%s: %d rows, %d images, %q", address, first, images, title)
	}
	must(t, chromedp.Run(ctx,
		chromedp.Click(`#results tbody a`), chromedp.WaitVisible(`dl`), chromedp.Text(`main`, &text),
	))
	for _, part := range []string{s.Digest("browser/unsigned:1").String(), "Pod/unsigned", "What became of it", "Sign this digest"} {
		if !strings.Contains(text, part) {
			t.Errorf("the image's page does not say %q: %s", part, text)
		}
	}
	shoot(ctx, t, "image")
	must(t, chromedp.Run(ctx,
		emulation.SetScriptExecutionDisabled(true), chromedp.Navigate(at+"/?status=UNKNOWN"), chromedp.WaitVisible(`#summary table`), chromedp.Text(`main`, &text),
	))
	if !strings.Contains(text, "browser") || !strings.Contains(text, "unsigned") {
		t.Errorf("without scripts: %s", text)
	}
	must(t, chromedp.Run(ctx, emulation.SetScriptExecutionDisabled(false)))
	var paint float64
	must(t, chromedp.Run(ctx,
		chromedp.Navigate(at+"/"), chromedp.WaitVisible(`#results table`),
		chromedp.Poll(`(performance.getEntriesByName("first-contentful-paint")[0] || {}).startTime`, &paint),
	))
	t.Logf("first contentful paint after %.0f ms", paint)
	must(t, chromedp.Run(ctx, chromedp.Click(`header button`), chromedp.WaitVisible(`input[name=token]`)))
}
