// An origin that writes down every request net/http gave it. usage: origin ADDRESS:PORT LOG
package main

import (
	"crypto/sha1"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"strings"
)

func main() {
	file, err := os.OpenFile(os.Args[2], os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		log.Fatal(err)
	}
	// No ServeMux: it would redirect and clean paths by itself.
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		state := "whole"
		if err != nil {
			state = "broken"
		}
		smuggled := r.Header.Get("X-Smuggled")
		if smuggled == "" {
			smuggled = "-"
		}
		// One write a line, so that lines of several connections do not mix.
		fmt.Fprintf(file, "%s %s %s %d %x %s %s\n", r.Method, r.RequestURI, r.Host, len(body), sha1.Sum(body), state, strings.ReplaceAll(smuggled, " ", "_"))
		w.Header().Set("Content-Type", "text/plain")
		fmt.Fprintf(w, "%s\n", r.RequestURI)
	})
	log.Fatal(http.ListenAndServe(os.Args[1], handler))
}
