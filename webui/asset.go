package webui

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"net/http"
	"path"
	"time"
)

//go:embed page openapi.yaml
var files embed.FS

// asset serves one embedded file. Browsers ask each time whether theirs is
// still the right one, so that an updated box never shows a mixture.
func asset(name, kind string) http.Handler {
	body, err := files.ReadFile(name)
	if err != nil {
		panic(err) // the name is a constant of this package
	}
	sum := sha256.Sum256(body)
	tag := `"` + hex.EncodeToString(sum[:8]) + `"`
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", kind)
		w.Header().Set("Cache-Control", "no-cache")
		w.Header().Set("ETag", tag)
		http.ServeContent(w, r, path.Base(name), time.Time{}, bytes.NewReader(body))
	})
}
