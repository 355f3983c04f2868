// The application of README.md on net/http. usage: app ADDRESS PORT DIRECTORY
package main

import (
	"crypto/sha256"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"time"
)

func main() {
	address, port, directory := os.Args[1], os.Args[2], os.Args[3]
	file := func(name, coding string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			body, err := os.ReadFile(directory + "/" + name)
			if err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
			if coding != "" {
				w.Header().Set("Content-Encoding", coding)
			}
			w.Header().Set("Content-Type", "application/octet-stream")
			w.Header().Set("Content-Length", fmt.Sprint(len(body)))
			w.Write(body)
		}
	}
	pages := map[string]http.HandlerFunc{
		"/text":     func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, "hello") },
		"/download": file("download", ""),
		"/packed":   file("packed", "gzip"),
		"/cookies": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Add("Set-Cookie", "a=1; Path=/")
			w.Header().Add("Set-Cookie", "b=2; Path=/; HttpOnly")
			io.WriteString(w, r.Header.Get("Cookie"))
		},
		"/digest": func(w http.ResponseWriter, r *http.Request) {
			hash := sha256.New()
			length, err := io.Copy(hash, r.Body)
			if err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
			fmt.Fprintf(w, "%x %d", hash.Sum(nil), length)
		},
		"/events": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			for number := range 3 {
				if number > 0 {
					time.Sleep(200 * time.Millisecond)
				}
				fmt.Fprintf(w, "data: %d\n\n", number)
				w.(http.Flusher).Flush()
			}
		},
		"/trailers": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Trailer", "X-Trailer")
			io.WriteString(w, "body\n")
			w.Header().Set("X-Trailer", "end")
		},
	}
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Origin", "go")
		w.Header().Set("Content-Type", "text/plain")
		if page, ok := pages[r.URL.Path]; ok {
			page(w, r)
			return
		}
		http.NotFound(w, r)
	})
	log.Fatal(http.ListenAndServe(net.JoinHostPort(address, port), handler))
}
