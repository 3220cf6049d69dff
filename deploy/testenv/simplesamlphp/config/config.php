<?php
// SimpleSAMLphp on loopback: everything it writes goes into the one folder.
$dir = getenv('GROUPGATE_SAML_DIR');
$config = [
    // Another site than 127.0.0.1 is, as a real provider is another site than a portal.
    'baseurlpath' => 'http://localhost:' . $_SERVER['SERVER_PORT'] . '/simplesaml/',
    'certdir' => "$dir/cert/",
    'datadir' => "$dir/tmp/",
    'tempdir' => "$dir/tmp",
    'loggingdir' => "$dir/tmp/",
    'metadatadir' => dirname(__DIR__) . '/metadata/',
    'timezone' => 'UTC',
    'secretsalt' => trim(file_get_contents("$dir/salt")),
    'auth.adminpassword' => bin2hex(random_bytes(24)), // nobody's
    'technicalcontact_email' => 'na@example.org',
    'enable.saml20-idp' => true,
    'module.enable' => ['exampleauth' => true, 'core' => true, 'saml' => true],
    'admin.checkforupdates' => false,
    'trusted.url.domains' => [],
    'showerrors' => true,
    'errorreporting' => false,
    'logging.handler' => 'errorlog',
    'logging.format' => '%level %msg',
    'logging.level' => SimpleSAML\Logger::NOTICE,
    'statistics.out' => [],
    'store.type' => 'phpsession',
    'session.duration' => 8 * 60 * 60,
    'session.phpsession.cookiename' => 'SimpleSAML',
    'session.phpsession.savepath' => "$dir/sessions",
    'session.cookie.secure' => false, // plain http
    'session.cookie.samesite' => null,
    'language.default' => 'en',
    'language.available' => ['en'],
    'language.cookie.secure' => false,
    'language.cookie.samesite' => null,
    'theme.use' => 'default',
    'production' => true,
    'metadata.sources' => [['type' => 'flatfile']],
];
