import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import express, { type Router } from 'express'
import helmet from 'helmet'
import { absolutePath } from 'swagger-ui-dist'

/**
 * A page to read the OpenAPI document and try it. Everything comes from this server: the page asks nobody else.
 * `Authorize` takes the accessToken of POST /sessions.
 */
export function docsPage(): Router {
  const router = express.Router()
  router.use(
    helmet({
      contentSecurityPolicy: {
        useDefaults: false,
        directives: {
          'default-src': ["'none'"],
          'script-src': ["'self'"],
          'style-src': ["'self'", "'unsafe-inline'"], // swagger-ui sets style attributes
          'img-src': ["'self'", 'data:'],
          'font-src': ["'self'"],
          'connect-src': ["'self'"],
          'base-uri': ["'none'"],
          'form-action': ["'self'"],
          'frame-ancestors': ["'none'"],
        },
      },
    }),
  )
  const ui = absolutePath()
  router.get('/', (request, response) => {
    // Relative addresses in the page need the slash.
    if (!request.originalUrl.split('?', 1)[0]?.endsWith('/')) return response.redirect('/docs/')
    return response.type('html').send(PAGE)
  })
  router.get('/start.js', (_request, response) => response.type('js').send(START))
  for (const file of ['swagger-ui.css', 'swagger-ui-bundle.js', 'favicon-32x32.png']) {
    const content = readFileSync(join(ui, file))
    router.get(`/${file}`, (_request, response) => {
      response.setHeader('cache-control', 'public, max-age=3600')
      return response.type(file.slice(file.lastIndexOf('.'))).send(content)
    })
  }
  return router
}

const PAGE = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Ares: REST</title>
<link rel="stylesheet" href="swagger-ui.css">
<link rel="icon" type="image/png" href="favicon-32x32.png">
</head>
<body style="margin: 0">
<form id="login" style="font-family: sans-serif; padding: 0.8rem 1.2rem; background: #1b1b1b; color: #fff">
  <strong>Ares</strong>
  <input name="email" type="email" placeholder="e-mail" autocomplete="username" required style="margin-left: 1rem">
  <input name="password" type="password" placeholder="password" autocomplete="current-password" required>
  <button>Log in</button>
  <span id="who" role="status" style="margin-left: 1rem"></span>
</form>
<div id="ui"></div>
<script src="swagger-ui-bundle.js"></script>
<script src="start.js"></script>
</body>
</html>
`

const START = `const ui = SwaggerUIBundle({
  url: '/api/v1/openapi.json',
  dom_id: '#ui',
  deepLinking: true,
  docExpansion: 'list',
  validatorUrl: null,
  tryItOutEnabled: true,
})
document.getElementById('login').addEventListener('submit', async (event) => {
  event.preventDefault()
  const who = document.getElementById('who')
  const { email, password } = Object.fromEntries(new FormData(event.target))
  const answer = await fetch('/api/v1/sessions', {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ email, password }),
  })
  const body = await answer.json()
  if (!answer.ok) {
    who.textContent = body.detail
    return
  }
  ui.preauthorizeApiKey('bearer', body.accessToken)
  who.textContent = 'logged in as ' + body.user.email + ' until ' + new Date(body.expiresAt).toLocaleTimeString()
  event.target.elements.password.value = ''
})
`
