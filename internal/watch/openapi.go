package watch

import _ "embed"

// openAPI describes the API to programs that make clients of it.
//
//go:embed openapi.json
var openAPI []byte
