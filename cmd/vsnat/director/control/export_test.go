// SPDX-License-Identifier: Apache-2.0

package control

// Routes lists method and path of everything served.
func Routes() []string {
	var list []string
	for _, r := range routes() {
		list = append(list, r.pattern())
	}
	return list
}

// Permits is the rule for who may speak to a director of user own.
func Permits(own int, peer uint32) error { return permits(own, peer) }

// Path is the socket's path.
func (c *Client) Path() string { return c.path }

// OpenAPI is the description of the paths.
func OpenAPI() string { return openAPI }
