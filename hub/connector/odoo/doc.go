// Package odoo x.
package odoo
