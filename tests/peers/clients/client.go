// Go's net/http. usage: client VERSION CA DOWNLOAD PACKED ORIGINS TRAILERS
package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptrace"
	"os"
	"slices"
	"strings"
	"time"
)

var (
	version, download, packed = os.Args[1], os.Args[3], os.Args[4]
	origins, trailers         = strings.Split(os.Args[5], ","), strings.Split(os.Args[6], ",")
)

type visit struct {
	client *http.Client
	origin string
}

func (v visit) send(method, path string, body io.Reader) (*http.Response, error) {
	request, err := http.NewRequest(method, "https://"+v.origin+".walk.test"+path, body)
	if err != nil {
		return nil, err
	}
	response, err := v.client.Do(request)
	if err != nil {
		return nil, err
	}
	if response.StatusCode != 200 || fmt.Sprint(response.ProtoMajor) != version[:1] {
		return nil, fmt.Errorf("%s %s", response.Proto, response.Status)
	}
	if response.Header.Get("X-Origin") != v.origin {
		return nil, fmt.Errorf("the origin is %q", response.Header.Get("X-Origin"))
	}
	return response, nil
}

func (v visit) text(method, path string, body io.Reader) (string, error) {
	response, err := v.send(method, path, body)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return string(text), err
}

func same(got, wanted string, err error) error {
	if err == nil && got != wanted {
		err = fmt.Errorf("%.80q, not %.80q", got, wanted)
	}
	return err
}

func hash(bytes []byte) string { return fmt.Sprintf("%x", sha256.Sum256(bytes)) }

func (v visit) upload(body []byte, reader io.Reader) error {
	text, err := v.text("POST", "/digest", reader)
	return same(text, fmt.Sprintf("%s %d", hash(body), len(body)), err)
}

// Hides the length, so that net/http cannot know it.
type unsized struct{ io.Reader }

func (v visit) events() error {
	response, err := v.send("GET", "/events", nil)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	var text strings.Builder
	var times []time.Time
	for lines := bufio.NewScanner(response.Body); lines.Scan(); {
		if line := lines.Text(); line != "" {
			text.WriteString(line + " ")
			times = append(times, time.Now())
		}
	}
	if err := same(text.String(), "data: 0 data: 1 data: 2 ", nil); err != nil {
		return err
	}
	if took := times[2].Sub(times[0]); took < 250*time.Millisecond {
		return fmt.Errorf("all events within %v", took)
	}
	return nil
}

func (v visit) cookies() error {
	for _, wanted := range []string{"", "a=1; b=2"} {
		response, err := v.send("GET", "/cookies", nil)
		if err != nil {
			return err
		}
		text, err := io.ReadAll(response.Body)
		if err := same(string(text), wanted, err); err != nil {
			return err
		}
		if got := response.Header.Values("Set-Cookie"); len(got) != 2 {
			return fmt.Errorf("set: %q", got)
		}
	}
	return nil
}

func (v visit) trailers() error {
	response, err := v.send("GET", "/trailers", nil)
	if err != nil {
		return err
	}
	text, err := io.ReadAll(response.Body)
	return same(string(text)+response.Trailer.Get("X-Trailer"), "body\nend", err)
}

func (v visit) reuse() error {
	for time := range 2 {
		request, _ := http.NewRequest("GET", "https://"+v.origin+".walk.test/text", nil)
		var reused bool
		trace := &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) { reused = info.Reused }}
		response, err := v.client.Do(request.WithContext(httptrace.WithClientTrace(request.Context(), trace)))
		if err != nil {
			return err
		}
		io.Copy(io.Discard, response.Body)
		response.Body.Close()
		if time == 1 && !reused {
			return errors.New("a second connection")
		}
	}
	return nil
}

func main() {
	pem, err := os.ReadFile(os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	sized := bytes.Repeat([]byte("0123456789"), 10_000)
	streamed := bytes.Repeat([]byte{'x'}, 1<<20+1)
	for _, origin := range origins {
		jar, _ := cookiejar.New(nil)
		transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, DisableCompression: true, ForceAttemptHTTP2: version == "2"}
		if version != "2" {
			transport.TLSNextProto = map[string]func(string, *tls.Conn) http.RoundTripper{}
		}
		v := visit{&http.Client{Transport: transport, Jar: jar, Timeout: 30 * time.Second}, origin}
		plain := func(method, path, wanted string) func() error {
			return func() error { text, err := v.text(method, path, nil); return same(text, wanted, err) }
		}
		digest := func(path, wanted string) func() error {
			return func() error { text, err := v.text("GET", path, nil); return same(hash([]byte(text)), wanted, err) }
		}
		checks := []struct {
			name string
			run  func() error
		}{
			{"get", plain("GET", "/text", "hello\n")},
			{"head", plain("HEAD", "/text", "")},
			{"post", func() error { return v.upload(sized, bytes.NewReader(sized)) }},
			{"stream", func() error { return v.upload(streamed, unsized{bytes.NewReader(streamed)}) }},
			{"download", digest("/download", download)},
			{"packed", digest("/packed", packed)},
			{"events", v.events},
			{"cookies", v.cookies},
			{"trailers", v.trailers},
			{"reuse", v.reuse},
		}
		for _, check := range checks {
			if check.name == "trailers" && !slices.Contains(trailers, origin) {
				continue
			}
			said := "ok"
			if err := check.run(); err != nil {
				said = strings.ReplaceAll(err.Error(), "\n", " ")
			}
			fmt.Println(origin, check.name, said)
		}
	}
}
