package migrate

import "strings"

// oauth2 is oauth2-proxy with the options of version 7.15.
var oauth2 = &product{
	name: "oauth2-proxy", prefix: "OAUTH2_PROXY_",
	lists: words(`allowed_groups allowed_roles api_routes cookie_domains email_domains entra_id_allowed_tenants exclude_logging_paths
		extra_jwt_issuers github_users gitlab_groups gitlab_projects google_groups htpasswd_user_groups keycloak_groups oidc_audience_claims
		oidc_enabled_signing_algs oidc_extra_audiences oidc_public_key_files provider_ca_files redis_cluster_connection_urls
		redis_sentinel_connection_urls skip_auth_regex skip_auth_routes tls_cipher_suites trusted_ips trusted_proxy_ips upstreams
		whitelist_domains`),
	bools: words(`allow_query_semicolons auth_logging bearer_token_login_fallback cookie_csrf_per_request cookie_httponly cookie_secure
		disable_keep_alives display_htpasswd_form encode_state entra_id_federated_token_auth errors_to_info_log force_https
		force_json_errors gcp_healthchecks google_use_application_default_credentials google_use_organization_id
		insecure_oidc_allow_unverified_email insecure_oidc_skip_issuer_verification insecure_oidc_skip_nonce logging_compress
		logging_local_time pass_access_token pass_authorization_header pass_basic_auth pass_host_header pass_user_headers
		prefer_email_to_user proxy_websockets redis_insecure_skip_tls_verify redis_use_cluster redis_use_sentinel
		relative_redirect_url request_logging reverse_proxy session_cookie_minimal set_authorization_header set_basic_auth
		set_xauthrequest show_debug_on_error silence_ping_logging skip_auth_preflight skip_auth_strip_headers
		skip_claims_from_profile_url skip_jwt_bearer_tokens skip_oidc_discovery skip_provider_button ssl_insecure_skip_verify
		ssl_upstream_insecure_skip_verify standard_logging use_system_trust_store`),
	others: words(`acr_values approval_prompt auth_logging_format auth_request_response_mode authenticated_emails_file
		azure_graph_group_field azure_tenant backend_logout_url banner basic_auth_password bitbucket_repository bitbucket_team client_id
		client_secret client_secret_file code_challenge_method config cookie_csrf_expire cookie_csrf_per_request_limit
		cookie_csrf_samesite cookie_expire cookie_name cookie_path cookie_refresh cookie_samesite cookie_secret cookie_secret_file
		custom_sign_in_logo custom_templates_dir flush_interval footer force_code_challenge_method github_org github_repo github_team
		github_token google_admin_api_user_scope google_admin_email google_service_account_json google_target_principal htpasswd_file
		http_address https_address jwt_key jwt_key_file logging_filename logging_max_age logging_max_backups logging_max_size login_url
		metrics_address metrics_secure_address metrics_tls_cert_file metrics_tls_key_file oidc_email_claim oidc_groups_claim
		oidc_issuer_url oidc_jwks_url ping_path ping_user_agent profile_url prompt provider provider_display_name proxy_prefix
		pubjwk_url ready_path real_client_ip_header redeem_url redirect_url redis_ca_path redis_connection_idle_timeout
		redis_connection_url redis_password redis_sentinel_master_name redis_sentinel_password redis_username request_id_header
		request_logging_format resource scope session_store_type signature_key standard_logging_format tls_cert_file tls_key_file
		tls_min_version upstream_timeout user_id_claim validate_url`),
	means: oauth2Means(),
}

func words(text string) []string { return strings.Fields(text) }

// oauth2Means is a line for every option that is not translated, by what they
// share.
func oauth2Means() map[string]string {
	means := map[string]string{}
	for _, group := range []struct{ options, meaning string }{
		// What groupgate does unasked.
		{`auth_request_response_mode config display_htpasswd_form skip_auth_strip_headers skip_provider_button code_challenge_method
			force_code_challenge_method insecure_oidc_skip_nonce cookie_csrf_per_request cookie_csrf_per_request_limit
			cookie_csrf_expire cookie_csrf_samesite encode_state cookie_httponly cookie_secure proxy_websockets flush_interval
			relative_redirect_url use_system_trust_store api_routes skip_claims_from_profile_url
			session_cookie_minimal cookie_path azure_graph_group_field logging_local_time silence_ping_logging`, ""},
		{`cookie_name cookie_samesite`,
			"the cookie is always __Host-groupgate, Secure, HttpOnly and SameSite=Lax"},
		{`cookie_domains`, "a cookie is of one host alone; further hosts are routes with host, each with a cookie of its own"},
		{`cookie_secret cookie_secret_file`,
			"is not taken over: session.keys are generated and kept in the store when absent. People sign in once more"},
		{`session_store_type redis_ca_path redis_cluster_connection_urls redis_connection_idle_timeout redis_connection_url
			redis_insecure_skip_tls_verify redis_password redis_sentinel_connection_urls redis_sentinel_master_name
			redis_sentinel_password redis_use_cluster redis_use_sentinel redis_username`,
			"there is no Redis: sessions are kept in the store, a file of one replica or a PostgreSQL of several"},
		{`whitelist_domains`, "a login leads back to public_url and to hosts of routes, nowhere else: make a route for each host of yours"},
		{`trusted_ips`, "nobody gets past the login by an address: open paths by routes with access: public"},
		{`skip_auth_preflight`, "no request passes by its method: open paths by routes with access: public, or answer CORS at the upstream"},
		{`real_client_ip_header`, "of a trusted proxy X-Forwarded-For counts, nothing else"},
		{`htpasswd_user_groups`, "local users are put into manual groups by an administrator"},
		{`basic_auth_password set_basic_auth pass_basic_auth`, "the upstream gets no password: it gets the headers, or the signed assertion (headers.assertion)"},
		{`pass_access_token pass_authorization_header set_authorization_header`,
			"tokens of the provider never leave groupgate: in their place is a signed assertion (headers.assertion) with keys at PREFIX/jwks.json"},
		{`signature_key`, "in its place is the signed assertion (headers.assertion)"},
		{`skip_jwt_bearer_tokens extra_jwt_issuers bearer_token_login_fallback`,
			"a bearer token is no login; scripts may use a password by a route with basic"},
		{`login_url redeem_url profile_url validate_url oidc_jwks_url oidc_public_key_files skip_oidc_discovery pubjwk_url`,
			"the provider's addresses and keys are always found by discovery at the issuer"},
		{`insecure_oidc_skip_issuer_verification`, "the issuer is always checked; for several tenants of Entra ID make a source of each"},
		{`insecure_oidc_allow_unverified_email`, "require.email_verified is written only where you want it: an address never tells who somebody is here"},
		{`ssl_insecure_skip_verify ssl_upstream_insecure_skip_verify`, "certificates are always checked"},
		{`provider_ca_files`, "the system's authorities are asked: add yours to them, or name the file in the environment variable SSL_CERT_FILE"},
		{`oidc_audience_claims oidc_extra_audiences oidc_enabled_signing_algs`, "the audience is the client id, and algorithms are what is safe: there is nothing to set"},
		{`prompt approval_prompt acr_values resource`, "no parameters are added to the request at the provider"},
		{`backend_logout_url`, "signing out ends the session at the provider by itself (RP-initiated logout)"},
		{`jwt_key jwt_key_file`, "for private_key_jwt name the key in oidc.client_key"},
		{`github_org github_repo github_team github_token github_users bitbucket_repository bitbucket_team`,
			"restrict by groups that the OpenID provider states, with routes and groups"},
		{`gitlab_projects`, "only groups are stated by the token; projects are not"},
		{`google_groups google_admin_email google_service_account_json google_target_principal google_admin_api_user_scope
			google_use_application_default_credentials google_use_organization_id`,
			"Google's tokens state no groups, and its directory is not asked: restrict by require.email_domains, or keep groups by hand"},
		{`entra_id_allowed_tenants entra_id_federated_token_auth`, "one source is one tenant; its client authenticates by client_secret or client_key"},
		{`ping_path ping_user_agent ready_path gcp_healthchecks`, "/healthz and /readyz are on the listener admin.listen"},
		{`metrics_address metrics_secure_address metrics_tls_cert_file metrics_tls_key_file`, "/metrics is on the listener admin.listen, next to the API: that is not for everybody"},
		{`tls_cipher_suites tls_min_version`, "TLS 1.2 and 1.3 with what is safe of them: there is nothing to set"},
		{`force_https`, "the listener speaks one of both: leave the redirect to what listens on port 80"},
		{`force_json_errors`, "scripts get JSON, people get pages, by what a request asks for"},
		{`custom_templates_dir custom_sign_in_logo banner footer show_debug_on_error`, "pages cannot be changed"},
		{`request_id_header`, "a request's id is groupgate's own; traces go by traceparent"},
		{`request_logging request_logging_format auth_logging auth_logging_format standard_logging standard_logging_format
			errors_to_info_log exclude_logging_paths logging_compress logging_filename logging_max_age logging_max_backups logging_max_size`,
			"log lines are JSON on the standard error output (log.level, log.format)"},
		{`upstream_timeout disable_keep_alives allow_query_semicolons`, "there is nothing to set"},
	} {
		for _, o := range words(group.options) {
			means[o] = group.meaning
		}
	}
	return means
}
