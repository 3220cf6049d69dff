<?php
// What a web server's alias and PATH_INFO do for SimpleSAMLphp: /simplesaml/X.php/REST
// is X.php of the package with PATH_INFO /REST; anything else is a file of it.
$www = getenv('GROUPGATE_SAML_WWW');
$path = rawurldecode(parse_url($_SERVER['REQUEST_URI'], PHP_URL_PATH) ?: '/');
if (!preg_match('#^/simplesaml(/[A-Za-z0-9_./-]*)$#', $path, $found) || str_contains($path, '..')) {
    http_response_code(404);
    return true;
}
$path = $found[1] === '/' ? '/index.php' : $found[1];
if (preg_match('#^(/[^.]*\.php)(/.*)?$#', $path, $found) && is_file($www . $found[1])) {
    $_SERVER['SCRIPT_NAME'] = '/simplesaml' . $found[1];
    $_SERVER['SCRIPT_FILENAME'] = $www . $found[1];
    $_SERVER['PATH_INFO'] = $found[2] ?? '';
    $_SERVER['PHP_SELF'] = '/simplesaml' . $path;
    chdir(dirname($www . $found[1]));
    require $www . $found[1];
    return true;
}
$types = ['css' => 'text/css', 'js' => 'text/javascript', 'png' => 'image/png', 'ico' => 'image/x-icon', 'svg' => 'image/svg+xml'];
$type = $types[pathinfo($path, PATHINFO_EXTENSION)] ?? null;
if ($type === null || !is_file($www . $path)) {
    http_response_code(404);
    return true;
}
header("Content-Type: $type");
readfile($www . $path);
